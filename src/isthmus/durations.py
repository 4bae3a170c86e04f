"""Seconds that a caller gives. Owns what is a duration and what is refused.

Refuses to know: what is bounded by it.
"""

from __future__ import annotations

import math
import threading
from numbers import Real

UNBOUNDED_SECONDS = threading.TIMEOUT_MAX
"""What is this long, some hundred years, is no bound: event loops cannot all count that far."""


def checked_seconds(given: object, name: str) -> float | None:
    """*given* in seconds; None for None, and for what is no bound (``float("inf")``).

    Arguments:
        given: A number of seconds, or None.
        name: What the caller calls it.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or not a number (NaN).
    """
    if given is None:
        return None
    if not isinstance(given, Real) or isinstance(given, bool):
        raise TypeError(f"{name} is a number of seconds or None, not {given!r}")
    try:
        seconds = float(given)
    except OverflowError:  # an integer that no float can hold
        seconds = -math.inf if given <= 0 else math.inf
    if not seconds >= 0:  # NaN is neither
        raise ValueError(f"{name} is a number of seconds that is not negative, not {given!r}")
    return seconds if seconds < UNBOUNDED_SECONDS else None
