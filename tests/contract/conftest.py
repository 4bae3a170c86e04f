"""Every test of the contract runs on every flavour of event loop."""

from __future__ import annotations

import pytest

from support import FLAVOURS, warm_up_uvloop


@pytest.fixture(autouse=True, params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        warm_up_uvloop()
    return str(request.param)
