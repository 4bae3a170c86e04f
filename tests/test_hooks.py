"""Counting the users of something that is replaced."""

from __future__ import annotations

import threading

import pytest

from isthmus.hooks import Hook
from support import WAIT_SECONDS

requirement = pytest.mark.requirement


class Recorded(Hook):
    """Says what is done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def _put_in(self) -> None:
        self.log.append("in")

    def _take_out(self) -> None:
        self.log.append("out")


@requirement("6.5-hooks")
def test_the_first_user_puts_it_in_and_the_last_takes_it_out() -> None:
    hook = Recorded()
    hook.install()
    hook.install()
    hook.remove()
    assert hook.log == ["in"]
    hook.remove()
    hook.install()
    assert hook.log == ["in", "out", "in"]


@requirement("6.5-hooks")
def test_a_user_that_leaves_in_the_middle_of_an_installation_waits_for_nobody() -> None:
    class Interrupted(Recorded):
        def _put_in(self) -> None:
            super()._put_in()
            self.remove()  # as a finalizer does that the collector runs just now
            self.log.append("still in")

    hook = Interrupted()
    thread = threading.Thread(target=hook.install, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert hook.log == ["in", "still in", "out"]


@requirement("6.5-hooks")
def test_a_user_that_leaves_while_another_thread_installs_is_counted_by_that_one() -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Recorded):
        def _put_in(self) -> None:
            super()._put_in()
            inside.set()
            assert go_on.wait(WAIT_SECONDS)

    hook = Slow()
    thread = threading.Thread(target=hook.install)
    thread.start()
    assert inside.wait(WAIT_SECONDS)
    hook.remove()
    assert hook.log == ["in"]
    go_on.set()
    thread.join(WAIT_SECONDS)
    assert hook.log == ["in", "out"]
