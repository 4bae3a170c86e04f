"""A tour of Isthmus: one namespace, and code on both sides of ``await``.

Run it:  isthmus run examples/tour.py

Every ``# %%`` below begins a cell. A tag says where it runs: ``[async]`` on the event loop,
``[thread]`` in a thread, ``[sync]`` as plain sync code on the loop's own thread. All cells share
one namespace, and whatever one of them binds is there for the next.
"""

# %% [async] A server, in the background
# Cells may await, as in a notebook. The server belongs to the event loop, and goes on serving there
# when this cell has ended. It listens on the loopback interface only, on a free port.

visits = []


async def answer(reader, writer):
    request = await reader.readline()
    path = request.decode().split()[1]
    visits.append(path)
    while (await reader.readline()).strip():
        pass  # the request's headers
    await asyncio.sleep(0.05)  # some work, during which others are served
    writer.write(f"HTTP/1.0 200 OK\r\n\r\nYou asked for {path}".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


server = await asyncio.start_server(answer, "127.0.0.1", 0)
serving = asyncio.create_task(server.serve_forever())
host, port = server.sockets[0].getsockname()
print(f"serving on port {port}")

# %% [thread] A blocking client
# urllib knows nothing of asyncio: it blocks until the answer is there. Here it blocks a thread, so
# the loop is free to give that answer. The port is the other cell's; `pages` will be everybody's.

from urllib.request import urlopen


def fetch(path):
    with urlopen(f"http://{host}:{port}{path}", timeout=5) as response:
        return response.read().decode()


pages = [fetch("/from-a-thread")]
pages

# %% [async] The same client, three times at once
# An async cell can call the blocking function as well: in threads, while the loop serves.

pages += await asyncio.gather(*(asyncio.to_thread(fetch, f"/{number}") for number in range(3)))
print(f"{len(visits)} visits so far; the server is {'down' if serving.done() else 'up'}")

# %% [async] An async function
# It stays what it is: calling it gives a coroutine, in whichever cell.


async def word_lengths(path):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answered = (await reader.read()).decode().splitlines()[-1]
    writer.close()
    await writer.wait_closed()
    return [len(word) for word in answered.split()]


await word_lengths("/async")

# %% [sync] Sync code that waits for async code
# `run_sync` hands back the result of an awaitable to code that cannot await: here the key function
# of `sorted`. It runs on the loop's own thread, and yet the server, on that same loop, answers.


def by_length(path):
    return run_sync(word_lengths(path))[-1]


sorted(["/isthmus", "/a", "/loop"], key=by_length)

# %% [thread] A database that wants its own thread
# sqlite3 refuses a connection in any thread but the one that opened it. All thread cells of a
# session run in the same one.

import sqlite3

database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE pages (text TEXT)")
database.executemany("INSERT INTO pages VALUES (?)", [(page,) for page in pages]).rowcount

# %% [thread] The connection, a cell later
# A thread cell may await too: the loop does it, and the cell has the result.

late_page = await asyncio.to_thread(fetch, "/late")
database.execute("INSERT INTO pages VALUES (?)", [late_page])
database.execute("SELECT count(*), max(length(text)) FROM pages").fetchone()

# %% [async] A coroutine left behind
# Nobody awaits it. A Python program would warn, and never run it. Here it becomes a task, bound to
# the same name.


async def count_slowly():
    await asyncio.sleep(0.1)
    return f"{len(visits)} visits in all"


report = count_slowly()

# %% [thread] Settled in another cell
# The task can be awaited from every later cell, any number of times.

print(await report)

# %% [thread] Tidy up: the database, in its thread

database.close()

# %% [async] Tidy up: the server, on its loop

server.close()
serving.cancel()
await asyncio.gather(serving, return_exceptions=True)
await server.wait_closed()
