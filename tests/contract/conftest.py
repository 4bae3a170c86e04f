"""A test of the contract runs on every flavour of event loop, unless it says otherwise itself."""

from __future__ import annotations

import pytest

from support import FLAVOURS, prepare_flavour


@pytest.fixture(autouse=True, params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that the test runs in."""
    return prepare_flavour(request.param)
