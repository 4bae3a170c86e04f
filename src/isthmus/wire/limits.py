"""How large a frame may be. Owns the bounds, which each side tells the other in the handshake.

Refuses to know: what a frame looks like.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

BODY_BYTES = 64 << 20
"""Bytes of one message: six times the largest source, and the output limit, that tests send."""

BUFFER_BYTES = 4 << 30
"""Bytes of all buffers that go with one message; from the air."""

BUFFERS = 1000
"""Buffers that go with one message, at most: with the head they fit one ``writev`` (IOV_MAX is
1024)."""

SHARED_BUFFERS = 100
"""Those among them that may be shared: each may cost the receiver a descriptor. SCM_MAX_FD of Linux
is 253."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one side takes in a single frame; a larger one ends the connection.

    Attributes:
        body_bytes: Of the message itself.
        buffer_bytes: Of all buffers that go with it.
    """

    body_bytes: Count = BODY_BYTES
    buffer_bytes: Count = BUFFER_BYTES
