"""The tree of errors, split by whose fault it is. Owns names and messages; no behaviour.

    IsthmusError
    ├── CellError                the cell's code ended in a way that cannot be re-raised as it is
    │   ├── CellExit             it raised SystemExit
    │   ├── CellCancelled        it was cancelled, or raised CancelledError
    │   ├── CellTimeout          it did not end by its deadline (also a TimeoutError)
    │   ├── CellAborted          it raised KeyboardInterrupt, GeneratorExit or another BaseException
    │   └── RemoteError          it raised an exception in another process
    ├── UsageError               the caller asked for something that cannot be done
    │   ├── ReservedNameError    a name that belongs to the runtime (also a ValueError)
    │   ├── UnknownNameError     a name that is not bound (also a LookupError)
    │   ├── LoopError            no event loop, a closed one, or another one (also a RuntimeError)
    │   ├── SessionClosedError   the session has ended (also a RuntimeError)
    │   ├── PoolClosedError      the pool of workers has ended (also a RuntimeError)
    │   ├── NoInputError         input() where the host has given none (also a RuntimeError)
    │   ├── UntrustedValueError  a pickled value, from a peer that is not trusted
    │   ├── MessageTooLargeError  more than the other process takes at once (also a ValueError)
    │   └── CrossingError        an await that cannot be done from here (also a RuntimeError)
    │       ├── ForeignThreadError    in a thread that no code of a session has started
    │       ├── ForeignTaskError      in a task that no cell runs in
    │       ├── ForeignGreenletError  in a greenlet that does not come from the cell
    │       ├── ForeignLoopError      for a future of another event loop
    │       ├── AlreadyAwaitedError   for a coroutine that somebody has awaited, or awaits now
    │       ├── CollectorError        in a finalizer that the garbage collector runs
    │       ├── ForkedProcessError    in a child process made by fork
    │       ├── TaskDestroyedError    in a task that is being destroyed
    │       └── DeadlockError         the wait could never end
    │           └── CallbackError     in a callback of the loop, which would wait for itself
    ├── CapabilityError          the host's rules stopped the call of a capability
    │   ├── CapabilityRevoked    it was taken back (also a RuntimeError)
    │   ├── CapabilityRefused    it was not approved (also a PermissionError)
    │   │   └── BudgetExceeded   what the cells may spend on it is spent
    │   └── CapabilityTimeout    it took longer than it may (also a TimeoutError)
    ├── PeerError                what came from the other process cannot be used
    │   ├── ProtocolError        it breaks the protocol: malformed, oversized or out of turn
    │   │   └── ProtocolVersionError  the two processes speak no version in common
    │   └── ValueLoadError       a value that cannot be unpickled here
    ├── WorkerError              a worker process cannot be used
    │   ├── WorkerStartError     it could not be started
    │   ├── PoolTimeout          none of the pool's was free in time (also a TimeoutError)
    │   ├── PoolFull             too many wait for one already
    │   └── WorkerDied           it has ended (also a ConnectionError)
    └── InternalError            a bug of ours

    CellInterrupted              a BaseException: raised inside a cell to stop it

What a cell's code raises as an ``Exception`` arrives as itself; only what would harm the host if
it were raised there (``SystemExit``, ``KeyboardInterrupt``, ``CancelledError``, …) is wrapped, with
the original as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping


class IsthmusError(Exception):
    """The root of everything that this package raises on purpose."""


class CellError(IsthmusError):
    """A cell's code ended in a way that must not be re-raised in the host as it is."""


class CellExit(CellError):
    """The cell raised ``SystemExit``; *code* is what it was raised with."""

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.code = code


class CellCancelled(CellError):
    """The cell was cancelled, by its caller or by its own code."""


class CellTimeout(CellError, TimeoutError):
    """The cell did not end by its deadline."""


class CellAborted(CellError):
    """The cell raised a ``BaseException`` that is not an ``Exception``."""


class RemoteError(CellError):
    """Code in another process raised an exception, which is described here.

    Attributes:
        type: The qualified name of its class, as in ``"builtins.ValueError"``.
        message: Its text.
        traceback: As Python printed it there, without frames of this package.
        details: Plain data of the exception, such as the ``"code"`` of a SystemExit.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 (the exception's)
        message: str = "",
        traceback: str = "",
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(type, message, traceback, details)
        self.type = type
        self.message = message
        self.traceback = traceback
        self.details = dict(details or {})

    def __str__(self) -> str:
        """As the last line of a traceback: ``ValueError: text``."""
        name = self.type.removeprefix("builtins.")
        return f"{name}: {self.message}" if self.message else name


class CellInterrupted(BaseException):
    """Raised inside a cell's code to stop it.

    A ``BaseException``, so that ``except Exception`` in the cell does not swallow it, and not a
    ``KeyboardInterrupt``, which would leave the host's event loop.
    """


class UsageError(IsthmusError):
    """The caller asked for something that cannot be done. Nothing was changed."""


class ReservedNameError(UsageError, ValueError):
    """The name belongs to the runtime, or is not a name. Nothing was bound."""


class UnknownNameError(UsageError, LookupError):
    """The name is not bound; *name* says which one. Nothing was changed or called."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class LoopError(UsageError, RuntimeError):
    """There is no event loop to use, or it is closed, or it is another one."""


class SessionClosedError(UsageError, RuntimeError):
    """The session has ended. Nothing was run."""


class CrossingError(UsageError, RuntimeError):
    """An awaitable cannot be waited for from here. The coroutine that was given is closed."""


class ForeignThreadError(CrossingError):
    """No code of a session has started this thread, so that there is no loop to wait in."""


class ForeignTaskError(CrossingError):
    """No cell runs in this task: it could not go on while sync code below it waits."""


class ForeignGreenletError(CrossingError):
    """The greenlet does not come from the cell, which therefore cannot be left from here."""


class ForeignLoopError(CrossingError):
    """The future belongs to another event loop, which alone can wake who waits for it."""


class AlreadyAwaitedError(CrossingError):
    """The coroutine was awaited before, or is being awaited now. It is left as it is."""


class CollectorError(CrossingError):
    """The garbage collector is at work below: nothing may be switched away from its middle."""


class ForkedProcessError(CrossingError):
    """The loop of the session runs in the parent process only."""


class TaskDestroyedError(CrossingError):
    """The task is being destroyed, and will not run again."""


class DeadlockError(CrossingError):
    """The wait could never end. The coroutine that was given is closed."""


class CallbackError(DeadlockError):
    """A callback of the event loop cannot wait for that loop, which waits for the callback."""


class PoolClosedError(UsageError, RuntimeError):
    """The pool has ended. Open another."""


class NoInputError(UsageError, RuntimeError):
    """A cell asks for input, and the host has given no function that would supply it."""


class UntrustedValueError(UsageError):
    """The value came as a pickle, and loading one runs code of whoever made it. It stays packed."""


class MessageTooLargeError(UsageError, ValueError):
    """The message is larger than what the other process takes at once. Nothing was sent."""


class CapabilityError(IsthmusError):
    """The host's rules stopped the call of a capability."""


class CapabilityRevoked(CapabilityError, RuntimeError):
    """The capability was taken back, replaced, or its session is gone. It was not called."""


class CapabilityRefused(CapabilityError, PermissionError):
    """The host did not approve the call. The capability was not called."""


class BudgetExceeded(CapabilityRefused):
    """What cells may spend on capabilities is spent: the call was not made, or was cut short."""


class CapabilityTimeout(CapabilityError, TimeoutError):
    """The capability took longer than it may, and was cancelled."""


class PeerError(IsthmusError):
    """What came from the other process cannot be used."""


class ProtocolError(PeerError):
    """The other process breaks the protocol. The connection cannot be used any further."""


class ProtocolVersionError(ProtocolError):
    """The two processes speak no version of the protocol in common. No session was opened."""


class ValueLoadError(PeerError):
    """The value cannot be unpickled here; ``__cause__`` says why. It stays packed."""


class WorkerError(IsthmusError):
    """A worker process cannot be used."""


class WorkerStartError(WorkerError):
    """The worker could not be started, or did not answer in time. No process is left."""


class PoolTimeout(WorkerError, TimeoutError):
    """No worker of the pool was free in time."""


class PoolFull(WorkerError):
    """As many as may wait for a worker of the pool do so already."""


class WorkerDied(WorkerError, ConnectionError):
    """The worker process has ended, and its namespace with it. ``restart()`` starts a new one.

    Attributes:
        exit_code: What the process ended with; None where a signal ended it, or nobody knows.
        signal: The name of the signal that ended it, as in ``"SIGSEGV"``; else None.
        out_of_memory: The control group says that its memory was used up.
        peak_memory_bytes: The most memory that it has held; 0 where that is not known.
        output: The last lines that it has written.
        cells: Numbers of the cells that had no outcome yet.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        out_of_memory: bool = False,
        peak_memory_bytes: int = 0,
        output: str = "",
        cells: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal
        self.out_of_memory = out_of_memory
        self.peak_memory_bytes = peak_memory_bytes
        self.output = output
        self.cells = cells


class InternalError(IsthmusError):
    """A bug in this package; please report it."""
