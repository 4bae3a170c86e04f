"""Fixtures of tests of workers."""

from __future__ import annotations

from functools import partial

import pytest

from isthmus import ForkServer, WorkerSession
from support import NewWorker


@pytest.fixture
def new_worker(fork_server: ForkServer) -> NewWorker:
    """Makes sessions in workers that cost some milliseconds: they are forked."""
    return partial(WorkerSession, fork_server=fork_server)
