"""Names and what they are bound to, told without handing out any value. Owns how that is done.

Refuses to know: sessions, messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.tracebacks import safe_repr
from isthmus.values import type_name
from isthmus.wire.parts import NameDescription


def described_names(names: Mapping[str, Any], text_characters: int) -> list[NameDescription]:
    """Each name with the class of its value, and the beginning of that one's ``repr``.

    Arguments:
        names: Names and values.
        text_characters: How much of each ``repr`` to tell; 0 asks no value for it.
    """
    return [
        NameDescription(
            name,
            type_name(value),
            safe_repr(value)[:text_characters] if text_characters else "",
        )
        for name, value in names.items()
    ]
