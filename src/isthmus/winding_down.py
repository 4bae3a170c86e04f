"""Winding down: stopping all that a home runs, children before parents. Owns that order.

Refuses to know: why, and what becomes of the home then.

Assumes: every function is called on the home loop's thread.
"""

from __future__ import annotations

import asyncio
from asyncio import wait
from typing import Any

from isthmus.home import Home
from isthmus.jobs import Job, ancestry, current_job


async def wind_down(home: Home, timeout: float) -> list[asyncio.Task[Any]]:
    """Stop all jobs of *home* and cancel all tasks that their code has made.

    Tasks that these start while they end are cancelled when they have. Jobs that have not ended
    after *timeout* seconds are given up.

    Returns:
        The tasks that have not ended.

    When a cell itself calls this, it and its parents are left alone.
    """
    deadline = home.loop.time() + timeout
    jobs = _jobs_to_stop(home)
    told = _cancel_tasks(home, set())
    for job in jobs:
        home.stop(job)
    futures = [job.wait_future(home.loop) for job in jobs if job.state != "ended"]
    waiting: set[asyncio.Future[Any]] = {*futures, *told}
    while waiting and await have_ended(waiting, max(deadline - home.loop.time(), 0)):
        newer = _cancel_tasks(home, told)
        told |= newer
        waiting = {*newer}
    _cancel_tasks(home, told)  # what those have started that are late
    for job in jobs:
        if job.state != "ended":
            home.abandon(job)
    return _tasks_to_end(home)


def _jobs_to_stop(home: Home) -> list[Job]:
    """All jobs but those that run the caller, children before parents.

    First what waits in the queue, so that it does not start.
    """
    callers = set(ancestry(current_job.get()))
    begun = [job for job in home.jobs() if job not in callers and job not in home.queue]
    begun.sort(key=lambda job: len(list(ancestry(job))), reverse=True)
    return [*reversed(home.queue), *begun]


def _tasks_to_end(home: Home) -> list[asyncio.Task[Any]]:
    """Tasks that are not done, oldest first: no task is older than the one that made it."""
    own = asyncio.current_task()
    stuck = [job.task for job in home.given_up if job.context != "thread"]
    made = dict.fromkeys([*stuck, *home.tasks, *home.ownership.of_kind("task")])
    return [task for task in made if task is not None and task is not own and not task.done()]


def _cancel_tasks(home: Home, told: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel tasks that have not been *told* yet; these."""
    tasks = [task for task in _tasks_to_end(home) if task not in told]
    for task in reversed(tasks):
        task.cancel("the session ends what it owns")
    return set(tasks)


async def have_ended(ends: set[asyncio.Future[Any]], timeout: float) -> bool:
    """Wait for all of *ends*, at most *timeout* seconds; whether they have come."""
    return not ends or not (await wait(ends, timeout=timeout))[1]
