"""Fixtures of tests of workers."""

from __future__ import annotations

from functools import partial

import pytest

from isthmus import ForkServer, WorkerPool, WorkerSession
from support import NewWorker


@pytest.fixture
def new_worker(fork_server: ForkServer) -> NewWorker:
    """Makes sessions in workers that cost some milliseconds: they are forked."""
    return partial(WorkerSession, fork_server=fork_server)


@pytest.fixture
def one(fork_server: ForkServer) -> WorkerPool:
    """A pool with one worker at a time, which is reset."""
    return WorkerPool(min_idle=0, max_size=1, on_return="reset", fork_server=fork_server)
