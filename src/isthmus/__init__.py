"""Isthmus: one live Python namespace, on both sides of ``await``."""

from isthmus.async_namespace import AsyncNamespaceManager
from isthmus.context_bridge import ExecutionContextBridge, RequestedContext
from isthmus.errors import (
    CellAborted,
    CellCancelled,
    CellError,
    CellExit,
    CellInterrupted,
    CellTimeout,
    CrossingError,
    DeadlockError,
    InternalError,
    IsthmusError,
    LoopError,
    ReservedNameError,
    SessionClosedError,
    UsageError,
)
from isthmus.events import (
    CellFinished,
    CellResult,
    CellStarted,
    Context,
    CoroutineAdopted,
    CoroutineSettled,
    Event,
    NamespaceUpdated,
    Output,
    Status,
    StreamName,
)
from isthmus.executor import AsyncExecutor
from isthmus.ledger import CoroutinePolicy, SettledCoroutines
from isthmus.namespace import NamespaceManager
from isthmus.namespace_sync import NamespaceSynchronizer, ValidationReport
from isthmus.portal import can_run_sync, run_sync
from isthmus.session import CloseReport, Session
from isthmus.transport import MemoryTransport, Transport

__all__ = [
    "AsyncExecutor",
    "AsyncNamespaceManager",
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
    "Context",
    "CoroutineAdopted",
    "CoroutinePolicy",
    "CoroutineSettled",
    "CrossingError",
    "DeadlockError",
    "Event",
    "ExecutionContextBridge",
    "InternalError",
    "IsthmusError",
    "LoopError",
    "MemoryTransport",
    "NamespaceManager",
    "NamespaceSynchronizer",
    "NamespaceUpdated",
    "Output",
    "RequestedContext",
    "ReservedNameError",
    "Session",
    "SessionClosedError",
    "SettledCoroutines",
    "Status",
    "StreamName",
    "Transport",
    "UsageError",
    "ValidationReport",
    "can_run_sync",
    "run_sync",
]
