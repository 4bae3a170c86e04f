"""``display`` in cells, and the rich form of a cell's value."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import isthmus
from isthmus import (
    AnySession,
    CellFinished,
    Display,
    MemoryTransport,
    Output,
    ReservedNameError,
)
from support import cell

requirement = pytest.mark.requirement

RICH = """
    class Rich:
        def __init__(self, name):
            self.name = name
        def _repr_html_(self):
            return f'<b>{self.name}</b>'
        def _repr_png_(self):
            return b'\\x89PNG', {'width': 1}
        def __repr__(self):
            return self.name
    """


@requirement("6.1-display")
async def test_what_is_displayed_keeps_its_place_among_what_is_printed(
    make_session: Any, transport: MemoryTransport, context: str
) -> None:
    session: AnySession = make_session("shown", transport=transport)
    await session.execute(cell(RICH))
    code = """
        import sys
        print('before')
        display(Rich('a'), Rich('b'), exclude=['image/png'], metadata={'by': 'cell'})
        print('between', end='')
        display({'text/html': '<i>'}, raw=True)
        sys.stderr.write('after')
        """
    result = await session.run(cell(code), context=context)
    assert result.error is None
    shown = [
        event.text if isinstance(event, Output) else event.data.get("text/html")
        for event in transport.events
        if isinstance(event, Output | Display)
    ]
    assert shown == ["before\n", "<b>a</b>", "<b>b</b>", "between", "<i>", "after"]
    assert [it.data for it in result.displays] == [it.data for it in transport.of_type(Display)]
    assert result.displays[0].data == {"text/html": "<b>a</b>", "text/plain": "a"}
    assert result.displays[0].metadata == {"by": "cell"}


@requirement("6.1-display")
async def test_tasks_and_library_code_display_in_the_cell_that_they_belong_to(
    session: AnySession, context: str
) -> None:
    session.update_namespace({"library": isthmus})
    code = """
        async def show(it):
            await asyncio.sleep(0)
            library.display(it)
        await asyncio.gather(show(1), asyncio.create_task(show(2)), asyncio.to_thread(display, 3))
        """
    result = await session.run(cell(code), context=context)
    assert result.error is None
    assert sorted(it.text for it in result.displays) == ["1", "2", "3"]


@requirement("6.1-display")
async def test_what_goes_wrong_in_a_method_is_said_on_stderr(
    session: AnySession, context: str
) -> None:
    code = """
        class Bad:
            def _repr_html_(self):
                raise ValueError('no html')
            def __repr__(self):
                return 'Bad()'
        display(Bad())
        """
    result = await session.run(cell(code), context=context)
    assert result.error is None
    assert [it.text for it in result.displays] == ["Bad()"]
    assert result.stderr == "_repr_html_ of Bad raised ValueError: no html\n"


@requirement("6.1-display")
async def test_a_display_is_an_event_in_json(make_session: Any, transport: MemoryTransport) -> None:
    session: AnySession = make_session("json", transport=transport)
    await session.execute(cell(RICH) + "\ndisplay(Rich('a'))")
    (event,) = transport.of_type(Display)
    decoded = msgspec.json.decode(msgspec.json.encode(event))
    assert decoded == {
        "type": "Display",
        "session": "json",
        "cell": 1,
        "data": {"text/html": "<b>a</b>", "image/png": "iVBORw==", "text/plain": "a"},
        "metadata": {"image/png": {"width": 1}},
    }


@requirement("2.3-prelude", "6.1-display")
async def test_the_name_is_the_runtimes_and_a_cell_may_shadow_it(session: AnySession) -> None:
    with pytest.raises(ReservedNameError, match="belongs to the runtime"):
        session.inject_capability("display", print)
    await session.execute("display = None")
    await session.execute("del display\ndisplay(1)")


class Wanting(MemoryTransport):
    """Wants values in their rich form."""

    wants_mime = True


@requirement("results", "6.1-display")
async def test_a_transport_that_wants_it_gets_the_rich_form_of_a_value(
    make_session: Any, context: str
) -> None:
    transport = Wanting()
    session: AnySession = make_session("value", transport=transport)
    await session.execute(cell(RICH))
    for code in ("Rich('v')", "5", "Rich"):
        await session.run(code, context=context)
    _, rich, plain, kind = transport.of_type(CellFinished)
    assert rich.mime is not None and rich.mime.data["text/html"] == "<b>v</b>"
    assert rich.value == "v"
    assert plain.mime is None and kind.mime is None
    assert msgspec.json.decode(msgspec.json.encode(rich))["mime"]["data"]["image/png"] == "iVBORw=="


@requirement("results", "6.1-display")
async def test_the_rich_form_of_a_value_is_computed_only_when_asked(
    make_session: Any, transport: MemoryTransport
) -> None:
    session: AnySession = make_session("unasked", transport=transport)
    code = """
        asked = []
        class Rich:
            def _repr_html_(self):
                asked.append(1)
                return '<b>'
        Rich()
        """
    result = await session.run(cell(code))
    assert transport.of_type(CellFinished)[0].mime is None
    assert await session.get("asked") == []
    assert result.mime_bundle().data["text/html"] == "<b>"
    assert session.namespace["asked"] == [1]


@requirement("6.1-display")
async def test_a_session_without_hooks_displays_all_the_same(make_session: Any) -> None:
    session: AnySession = make_session("no hooks", hooks=False)
    result = await session.run("display(1)")
    await asyncio.sleep(0)
    assert [it.text for it in result.displays] == ["1"]
