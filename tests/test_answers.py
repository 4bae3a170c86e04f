"""Answers: the thing itself, and what awaiting it gives."""

from __future__ import annotations

from collections.abc import Awaitable

from isthmus.answers import DONE, Asked, ReadyDict, ReadyList, ReadyText


async def test_an_answer_that_is_there_is_itself_awaited_or_not() -> None:
    answers: list[Awaitable[object]] = [ReadyDict(a=1), ReadyList([1, 2]), ReadyText("text")]
    for answer, plain in zip(answers, [{"a": 1}, [1, 2], "text"], strict=True):
        assert answer == plain
        assert await answer is answer
        assert await answer is answer, "as often as one likes"
    assert [await DONE, await DONE] == [None, None]


async def test_an_answer_is_asked_for_when_it_is_awaited() -> None:
    asked: list[int] = []

    async def ask() -> int:
        asked.append(1)
        return len(asked)

    answer = Asked(ask)
    assert asked == []
    assert [await answer, await answer] == [1, 2]
