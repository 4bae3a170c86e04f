"""The weather service that the agent of ``agent.py`` asks: HTTP/1.1 on the loopback interface.

A prop, with a part of the protocol: requests without a body, one for each connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

READINGS: dict[str, list[float | str]] = {
    "bergen": [4.5, 9.0, 13.5],
    "lisbon": [11.0, 28.5, "n/a", 17.0],  # services have such days
    "oslo": [-9.5, 2.0, 21.5],
    "quito": [13.0, 14.5, 14.0],
}
PAGES: dict[str, object] = {
    "/cities": list(READINGS),
    **{f"/cities/{city}": {"celsius": readings} for city, readings in READINGS.items()},
}


@asynccontextmanager
async def weather_service() -> AsyncIterator[int]:
    """Serve on a free port of 127.0.0.1, which it gives. At the end all connections have ended."""
    async with asyncio.TaskGroup() as connections:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.create_task(_answer(reader, writer))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request and close. A client that goes away, or sends no head, gets nothing."""
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(_response(head.decode("latin-1")))
        await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def _response(head: str) -> bytes:
    match head.split():
        case ["GET", path, *_] if path in PAGES:
            status, page = "200 OK", PAGES[path]
        case ["GET", *_]:
            status, page = "404 Not Found", {"pages": ["/cities", "/cities/NAME"]}
        case _:
            status, page = "405 Method Not Allowed\r\nAllow: GET", {}
    body = json.dumps(page).encode()
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body
