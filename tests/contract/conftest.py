"""Every test of the contract runs on every flavour of event loop."""

from __future__ import annotations

import sys

import pytest

_FLAVOURS = [
    "asyncio",
    "debug",
    pytest.param(
        "eager",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks: Python 3.12"),
    ),
    "uvloop",
]


@pytest.fixture(autouse=True, params=_FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)
