"""Functions of the host, as cells of a worker see them. Owns the colour of each call.

Refuses to know: how a call gets to the host, and what that does with it.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import _getframe
from typing import Any

from isthmus.capabilities import Capability, CapabilityHost, _ended
from isthmus.colours import Colour, stands_in_async
from isthmus.jobs import current_job
from isthmus.portal import can_run_sync
from isthmus.wire import callbacks
from isthmus.wire.parts import CapabilityDescription, Value
from isthmus.worker.calls import Answer, Call, Calls, Make
from isthmus.worker.remote_object import result_of
from isthmus.worker.signatures import signature_of


class RemoteCapability(Capability):
    """A function of the host, for cells of a worker.

    Arguments:
        description: What the host says of it.
        calls: Where calls are made.
        host: The session; held weakly.
    """

    def __init__(
        self, description: CapabilityDescription, calls: Calls, host: CapabilityHost
    ) -> None:
        self._calls = calls
        self._signature = description.signature
        super().__init__(description.name, self._stand_in(description), host=host)
        self.__doc__ = description.doc
        self._awaits = description.is_async

    def _stand_in(self, description: CapabilityDescription) -> Callable[..., Any]:
        """What ``inspect`` sees in place of the host's function."""

        def function(*args: Any, **kwargs: Any) -> Any:
            return self.now(*args, **kwargs)

        function.__doc__ = description.doc
        signature = signature_of(description.signature)
        if signature is not None:
            function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    def _parameters(self) -> str:
        return self._signature

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the host's function in the colour of the code in which the call stands.

        As in the host, only what the function gives says whether it is async: one that does not
        look so is waited for, the first time, and if it was its result comes as an awaitable.
        """
        self._check()
        is_async = stands_in_async(_getframe(1), self._namespace_id)
        if is_async and self._awaits:
            return self._named(self._call_later(args, kwargs))
        answer = self._call_now(args, kwargs, "async" if is_async else "sync")
        result = result_of(answer)
        if not answer.message.awaited:
            return result
        self._awaits = True
        return _ended(result) if is_async else result

    async def aio(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give an awaitable of the result, wherever the call stands."""
        self._check()
        return await self._call_later(args, kwargs)

    def now(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the result, wherever the call stands."""
        self._check()
        return result_of(self._call_now(args, kwargs, "sync"))

    # -- the call ----------------------------------------------------------------------------

    async def _call_later(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Send the call when this is awaited, and wait for the answer."""
        make = self._request("async")
        answer = await self._calls.ask(make, _given(args, kwargs), self._what)
        self._awaits = self._awaits or answer.message.awaited
        return result_of(answer)

    def _call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any], colour: Colour) -> Answer:
        """Send the call from this thread, and wait for the answer."""
        make, given = self._request(colour), _given(args, kwargs)
        if not can_run_sync():  # the error says why not, and nothing is sent
            return self._wait(self._calls.ask(make, given, self._what))  # type: ignore[no-any-return]
        call = self._calls.new(self._what)
        try:
            self._calls.send(call, make, given, self._what)
            return self._wait(_answer_to(call))  # type: ignore[no-any-return]
        finally:
            self._calls.leave(call)

    @property
    def _what(self) -> str:
        return f"the arguments of {self.name}()"

    def _request(self, colour: Colour) -> Make:
        """Makes the request of an id and packed arguments."""
        job = current_job.get()
        number, context = (0, None) if job is None else (job.number, job.context)

        def make(id_: int, arguments: Value | None) -> callbacks.CallCapability:
            return callbacks.CallCapability(
                id_,
                name=self.name,
                arguments=arguments,
                cell=number,
                context=context,
                colour=colour,
            )

        return make


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What there is to send; None without arguments."""
    return (args, kwargs) if args or kwargs else None


async def _answer_to(call: Call) -> Answer:
    return await call.future
