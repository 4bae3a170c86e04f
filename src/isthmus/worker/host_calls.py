"""Calls of the host's functions by one worker, and what they have returned for use over time. Owns
the task of each call and of each step, and the answers.

Refuses to know: processes, how a function runs.

Threads: the loop's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from isthmus.delegates import Delegate
from isthmus.errors import MessageTooLargeError, UntrustedValueError
from isthmus.interceptors import CapabilityCall
from isthmus.remote_failures import failure_of, same_error
from isthmus.values import PackedValue, pack
from isthmus.wire import callbacks, replies
from isthmus.wire.frames import Buffer, Received
from isthmus.wire.parts import Value
from isthmus.worker.callbacks import HostFunctions
from isthmus.worker.handed import Exhausted, HandedObjects, can_be_handed, stays_here

_EAGERLY: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Spares a call that never waits a turn of the loop, a tenth of what it costs in all."""


class Caller(NamedTuple):
    """Whose call the code of a function is at work for.

    Attributes:
        functions: Those of the session.
        cell: The number of the cell; 0 for code of no cell.
    """

    functions: HostFunctions
    cell: int


current_caller: ContextVar[Caller | None] = ContextVar("isthmus_worker_caller", default=None)
"""Set where a function of the host runs for a cell of a worker."""


class Sender(Protocol):
    """Where answers go."""

    def send(self, message: Any, buffers: Sequence[Buffer] = ()) -> None:
        """Send *message*."""


class Result(NamedTuple):
    """What a call or a step has given.

    Attributes:
        value: The object.
        lives: What takes the steps with it, if it is one for use over time; or on which loop.
        awaited: The function has given an awaitable.
    """

    value: Any
    lives: Delegate | asyncio.AbstractEventLoop
    awaited: bool = False


_Perform = Callable[[Any, list[Buffer]], Coroutine[Any, Any, Result]]
"""Does what a message asks for, given the buffers of its frame."""


class HostCalls:
    """The calls and steps of one worker that have no answer yet.

    Arguments:
        functions: What may be called.
        sender: Where answers go.
    """

    def __init__(self, functions: HostFunctions, sender: Sender) -> None:
        self._functions = functions
        self._sender = sender
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._objects = HandedObjects()

    def take(self, received: Received[Any]) -> None:
        """Take a request, a cancellation, or the end of an object."""
        message = received.message
        if isinstance(message, callbacks.CallCapability):
            self._begin(received, self._call)
        elif isinstance(message, callbacks.Step):
            self._begin(received, self._step)
        elif isinstance(message, callbacks.Release):
            self._objects.release(message.object)
        elif (task := self._tasks.get(message.request)) is not None:
            asyncio.get_running_loop().call_soon(task.cancel)  # once it has begun: it must answer

    def end(self, error: BaseException) -> None:
        """The worker has gone, of *error*: cancel what it has asked for, and end what it has used.

        Does not wait for any of it.
        """
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        self._objects.release_all(error)

    def _begin(self, received: Received[Any], perform: _Perform) -> None:
        """Have *perform* do what was asked for; its outcome is the answer.

        It begins at once where Python can do that, as in the task of a cell in this process. A task
        factory of the host decides that itself.
        """
        loop, work = asyncio.get_running_loop(), self._answer(received, perform)
        if loop.get_task_factory() is None:
            task = asyncio.Task(work, loop=loop, **_EAGERLY)
        else:
            task = loop.create_task(work)
        if not task.done():
            self._tasks[received.message.id] = task

    async def _answer(self, received: Received[Any], perform: _Perform) -> None:
        number, buffers = received.message.id, list[Buffer]()
        try:
            result = await perform(received.message, received.buffers)
            self._sender.send(self._reply(number, result, buffers), buffers)
        except MessageTooLargeError as error:
            self._sender.send(replies.Failed(number, failure_of(error)))
        except GeneratorExit:  # the task is being destroyed
            raise
        except BaseException as error:  # a boundary: the function is the host's, and what it raises
            buffers.clear()  # is for the cell; a SystemExit must not end the host's loop
            self._sender.send(replies.Failed(number, failure_of(error, buffers)), buffers)
        finally:  # a callback of the task would cost a turn of the loop
            if self._tasks.get(number) is asyncio.current_task():
                del self._tasks[number]

    def _reply(self, number: int, result: Result, buffers: list[Buffer]) -> Any:
        """The answer with *result*, which is handed out where it cannot be copied."""
        value, lives, awaited = result
        if isinstance(value, Exhausted):
            packed = pack(value.value, buffers, trusted=True)
            return replies.Exhausted(number, None if value.value is None else packed)
        if value is None:
            return replies.Returned(number, None, awaited)
        if not stays_here(value):
            packed = pack(value, buffers, trusted=True)
            if packed.kind != "repr" or not can_be_handed(value):
                return replies.Returned(number, packed, awaited)
        delegate = lives if isinstance(lives, Delegate) else Delegate(lives)
        return self._objects.hand(value, delegate, number, awaited)

    # -- what is asked for -------------------------------------------------------------------

    async def _call(self, message: callbacks.CallCapability, buffers: list[Buffer]) -> Result:
        function = self._functions.get(message.name)
        args, kwargs = (), {}
        if message.arguments is not None:
            what = f"the arguments of {message.name}()"
            args, kwargs = self._loaded(message.arguments, buffers, what)
        call = CapabilityCall(
            message.name,
            args,
            kwargs,
            session=self._functions.session,
            cell=message.cell,
            context=message.context,
            colour=message.colour,
        )
        current_caller.set(Caller(self._functions, message.cell))
        value = await function.perform(call)
        return Result(value, function.home(), function.is_async)

    async def _step(self, message: callbacks.Step, buffers: list[Buffer]) -> Result:
        used = self._objects.get(message.object)
        if message.error is not None:
            argument: Any = same_error(message.error)
        else:
            argument = self._loaded(message.value, buffers, "what a generator is sent")
        return Result(await used.take(message.step, argument), used.delegate)

    def _loaded(self, value: Value | None, buffers: list[Buffer], what: str) -> Any:
        """What a cell has sent.

        Raises:
            UntrustedValueError: It has come as a pickle, and the host does not load these.
        """
        packed = PackedValue(value, buffers)
        if packed.kind == "pickle" and not self._functions.trusted:
            raise UntrustedValueError(
                f"{what} must be plain data (None, numbers, text, bytes, and lists, tuples, dicts "
                "and sets of these): the host takes no pickles from this worker (trusted=False)"
            )
        return packed.load(trusted=self._functions.trusted)
