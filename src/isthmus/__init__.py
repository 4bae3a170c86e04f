"""Isthmus: one live Python namespace, on both sides of ``await``.

A name is imported when it is first asked for (PEP 562): a worker that starts, and a host that wants
one class, do not wait for all the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.async_namespace import AsyncNamespaceManager
    from isthmus.blocking_session import BlockingSession
    from isthmus.blocking_worker_session import BlockingWorkerSession
    from isthmus.capabilities import Capability, capability
    from isthmus.context_bridge import ExecutionContextBridge, RequestedContext
    from isthmus.displays import display
    from isthmus.ending import CloseReport
    from isthmus.errors import (
        AlreadyAwaitedError,
        BudgetExceeded,
        CallbackError,
        CapabilityError,
        CapabilityRefused,
        CapabilityRevoked,
        CapabilityTimeout,
        CellAborted,
        CellCancelled,
        CellError,
        CellExit,
        CellInterrupted,
        CellTimeout,
        CollectorError,
        CrossingError,
        DeadlockError,
        ForeignGreenletError,
        ForeignLoopError,
        ForeignTaskError,
        ForeignThreadError,
        ForkedProcessError,
        InternalError,
        IsthmusError,
        LoopError,
        MessageTooLargeError,
        NoInputError,
        PeerError,
        PoolClosedError,
        PoolFull,
        PoolTimeout,
        ProtocolError,
        ProtocolVersionError,
        RemoteError,
        ReservedNameError,
        SessionClosedError,
        TaskDestroyedError,
        UnknownNameError,
        UntrustedValueError,
        UsageError,
        ValueLoadError,
        WorkerDied,
        WorkerError,
        WorkerStartError,
    )
    from isthmus.events import (
        CellFinished,
        CellResult,
        CellStarted,
        Context,
        CoroutineAdopted,
        CoroutineDropped,
        CoroutineSettled,
        Display,
        Event,
        LoopBlocked,
        NamespaceUpdated,
        Output,
        OutputDropped,
        SessionClosed,
        SessionReset,
        Status,
        StreamName,
        TaskFailed,
        ThreadDied,
    )
    from isthmus.executor import AsyncExecutor, LateOutput
    from isthmus.interceptors import (
        Approve,
        Budget,
        CapabilityCall,
        Interceptor,
        Journal,
        JournalEntry,
        Timeout,
    )
    from isthmus.ledger import CoroutinePolicy, SettledCoroutines
    from isthmus.loop_calls import call_on_loop, spawn
    from isthmus.mime import MimeBundle
    from isthmus.namespace import NamespaceManager
    from isthmus.namespace_sync import NamespaceSynchronizer, ValidationReport
    from isthmus.namespace_view import NamespaceView
    from isthmus.ownership import LedgerCount, LedgerEntry
    from isthmus.portal import can_run_sync, run_sync
    from isthmus.queue_transport import QueueTransport
    from isthmus.session import Session
    from isthmus.sessions import AnySession, open_session
    from isthmus.thread_aware_loop import ThreadAwareLoop
    from isthmus.transport import MemoryTransport, Transport, WaitsForRoom
    from isthmus.values import PackedValue, RemoteRepr
    from isthmus.wire.parts import MainProgram, NameDescription
    from isthmus.worker.fork_server import ForkServer
    from isthmus.worker.limits import WorkerLimits
    from isthmus.worker.pool import PooledSession, WorkerPool
    from isthmus.worker.pool_stats import PoolReport, PoolStats
    from isthmus.worker.session import WorkerSession

__all__ = [
    "AlreadyAwaitedError",
    "AnySession",
    "Approve",
    "AsyncExecutor",
    "AsyncNamespaceManager",
    "BlockingSession",
    "BlockingWorkerSession",
    "Budget",
    "BudgetExceeded",
    "CallbackError",
    "Capability",
    "CapabilityCall",
    "CapabilityError",
    "CapabilityRefused",
    "CapabilityRevoked",
    "CapabilityTimeout",
    "CellAborted",
    "CellCancelled",
    "CellError",
    "CellExit",
    "CellFinished",
    "CellInterrupted",
    "CellResult",
    "CellStarted",
    "CellTimeout",
    "CloseReport",
    "CollectorError",
    "Context",
    "CoroutineAdopted",
    "CoroutineDropped",
    "CoroutinePolicy",
    "CoroutineSettled",
    "CrossingError",
    "DeadlockError",
    "Display",
    "Event",
    "ExecutionContextBridge",
    "ForeignGreenletError",
    "ForeignLoopError",
    "ForeignTaskError",
    "ForeignThreadError",
    "ForkServer",
    "ForkedProcessError",
    "Interceptor",
    "InternalError",
    "IsthmusError",
    "Journal",
    "JournalEntry",
    "LateOutput",
    "LedgerCount",
    "LedgerEntry",
    "LoopBlocked",
    "LoopError",
    "MainProgram",
    "MemoryTransport",
    "MessageTooLargeError",
    "MimeBundle",
    "NameDescription",
    "NamespaceManager",
    "NamespaceSynchronizer",
    "NamespaceUpdated",
    "NamespaceView",
    "NoInputError",
    "Output",
    "OutputDropped",
    "PackedValue",
    "PeerError",
    "PoolClosedError",
    "PoolFull",
    "PoolReport",
    "PoolStats",
    "PoolTimeout",
    "PooledSession",
    "ProtocolError",
    "ProtocolVersionError",
    "QueueTransport",
    "RemoteError",
    "RemoteRepr",
    "RequestedContext",
    "ReservedNameError",
    "Session",
    "SessionClosed",
    "SessionClosedError",
    "SessionReset",
    "SettledCoroutines",
    "Status",
    "StreamName",
    "TaskDestroyedError",
    "TaskFailed",
    "ThreadAwareLoop",
    "ThreadDied",
    "Timeout",
    "Transport",
    "UnknownNameError",
    "UntrustedValueError",
    "UsageError",
    "ValidationReport",
    "ValueLoadError",
    "WaitsForRoom",
    "WorkerDied",
    "WorkerError",
    "WorkerLimits",
    "WorkerPool",
    "WorkerSession",
    "WorkerStartError",
    "call_on_loop",
    "can_run_sync",
    "capability",
    "display",
    "open_session",
    "run_sync",
    "spawn",
]

_NAMES = {
    "isthmus.async_namespace": ("AsyncNamespaceManager",),
    "isthmus.blocking_session": ("BlockingSession",),
    "isthmus.blocking_worker_session": ("BlockingWorkerSession",),
    "isthmus.capabilities": (
        "Capability",
        "capability",
    ),
    "isthmus.context_bridge": (
        "ExecutionContextBridge",
        "RequestedContext",
    ),
    "isthmus.displays": ("display",),
    "isthmus.ending": ("CloseReport",),
    "isthmus.errors": (
        "AlreadyAwaitedError",
        "BudgetExceeded",
        "CallbackError",
        "CapabilityError",
        "CapabilityRefused",
        "CapabilityRevoked",
        "CapabilityTimeout",
        "CellAborted",
        "CellCancelled",
        "CellError",
        "CellExit",
        "CellInterrupted",
        "CellTimeout",
        "CollectorError",
        "CrossingError",
        "DeadlockError",
        "ForeignGreenletError",
        "ForeignLoopError",
        "ForeignTaskError",
        "ForeignThreadError",
        "ForkedProcessError",
        "InternalError",
        "IsthmusError",
        "LoopError",
        "MessageTooLargeError",
        "NoInputError",
        "PeerError",
        "PoolClosedError",
        "PoolFull",
        "PoolTimeout",
        "ProtocolError",
        "ProtocolVersionError",
        "RemoteError",
        "ReservedNameError",
        "SessionClosedError",
        "TaskDestroyedError",
        "UnknownNameError",
        "UntrustedValueError",
        "UsageError",
        "ValueLoadError",
        "WorkerDied",
        "WorkerError",
        "WorkerStartError",
    ),
    "isthmus.events": (
        "CellFinished",
        "CellResult",
        "CellStarted",
        "Context",
        "CoroutineAdopted",
        "CoroutineDropped",
        "CoroutineSettled",
        "Display",
        "Event",
        "LoopBlocked",
        "NamespaceUpdated",
        "Output",
        "OutputDropped",
        "SessionClosed",
        "SessionReset",
        "Status",
        "StreamName",
        "TaskFailed",
        "ThreadDied",
    ),
    "isthmus.executor": (
        "AsyncExecutor",
        "LateOutput",
    ),
    "isthmus.interceptors": (
        "Approve",
        "Budget",
        "CapabilityCall",
        "Interceptor",
        "Journal",
        "JournalEntry",
        "Timeout",
    ),
    "isthmus.ledger": (
        "CoroutinePolicy",
        "SettledCoroutines",
    ),
    "isthmus.loop_calls": (
        "call_on_loop",
        "spawn",
    ),
    "isthmus.mime": ("MimeBundle",),
    "isthmus.namespace": ("NamespaceManager",),
    "isthmus.namespace_sync": (
        "NamespaceSynchronizer",
        "ValidationReport",
    ),
    "isthmus.namespace_view": ("NamespaceView",),
    "isthmus.ownership": (
        "LedgerCount",
        "LedgerEntry",
    ),
    "isthmus.portal": (
        "can_run_sync",
        "run_sync",
    ),
    "isthmus.queue_transport": ("QueueTransport",),
    "isthmus.session": ("Session",),
    "isthmus.sessions": (
        "AnySession",
        "open_session",
    ),
    "isthmus.thread_aware_loop": ("ThreadAwareLoop",),
    "isthmus.transport": (
        "MemoryTransport",
        "Transport",
        "WaitsForRoom",
    ),
    "isthmus.values": (
        "PackedValue",
        "RemoteRepr",
    ),
    "isthmus.wire.parts": (
        "MainProgram",
        "NameDescription",
    ),
    "isthmus.worker.fork_server": ("ForkServer",),
    "isthmus.worker.limits": ("WorkerLimits",),
    "isthmus.worker.pool": (
        "PooledSession",
        "WorkerPool",
    ),
    "isthmus.worker.pool_stats": (
        "PoolReport",
        "PoolStats",
    ),
    "isthmus.worker.session": ("WorkerSession",),
}
"""Where each name is; the imports above say the same to type checkers."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # to a type checker there are the names above, and no others

    def __getattr__(name: str) -> object:
        """Import a public name from where it is."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__() -> list[str]:
        """All public names, imported or not."""
        return sorted({*globals(), *__all__})
