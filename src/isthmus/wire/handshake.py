"""The first message of each side: which version is spoken, and what each side takes.

These three never change but by optional fields, so that any two peers can at least tell each other
why they do not understand each other.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from isthmus.wire.limits import Limits

VERSION = 1
"""Of the protocol. A new one is for what a peer of this one would misunderstand; an optional field
needs none, and a new message has a feature's name (see docs/protocol.md)."""

VERSIONS: tuple[int, ...] = (VERSION,)
"""All that this package speaks, the best one first."""

SHARED_BUFFERS = "shared-buffers"
"""The feature: buffers may come as descriptors of shared memory, over a channel of its own."""

LIFELINE = "lifeline"
"""The feature: a pipe whose writing end goes with the host, and with it the worker."""

FEATURES: tuple[str, ...] = (SHARED_BUFFERS, LIFELINE)
"""All that version 1 has. Who takes part in a connection names those that it has a use for. With
each of them comes a descriptor, beside the first byte of ``Hello``."""


class Hello(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The host begins.

    Attributes:
        versions: Of the protocol that it speaks, the best one first.
        features: Names of optional parts of the protocol that it knows; others are ignored.
        limits: What it takes in a single frame.
        software: What it is, for people.
        reuse: It may want another session when one has ended, by ``Vacate``.
    """

    versions: tuple[int, ...]
    features: tuple[str, ...] = ()
    limits: Limits = Limits()
    software: str = ""
    reuse: bool = False


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The worker agrees.

    Attributes:
        version: The one of the host's versions that both speak from now on.
        features: Those of the host's features that are in force from now on.
        limits: What the worker takes in a single frame.
        software: What it is, for people.
        python: Its Python version, as ``"3.12.1"``.
        pid: Its process id as it sees it.
    """

    version: int
    features: tuple[str, ...] = ()
    limits: Limits = Limits()
    software: str = ""
    python: str = ""
    pid: int = 0


class Refused(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """The worker does not agree, and ends.

    Attributes:
        versions: Those that it speaks.
        message: Why, in words.
    """

    versions: tuple[int, ...]
    message: str = ""


def agreed_version(offered: Collection[int], known: Collection[int] = VERSIONS) -> int | None:
    """The first of the *offered* versions that is known, or None."""
    return next((version for version in offered if version in known), None)
