"""What the contract promises, sentence by sentence, and by which name the tests refer to it.

``test_requirements.py`` ties this table to the suite: each row has a test that carries its id in a
``requirement`` marker, and no test carries another id.
"""

from __future__ import annotations

REQUIREMENTS: dict[str, str] = {
    # the namespace
    "2.1-one-mapping": (
        "Nothing is copied in or merged back; a write is visible to every context at once, in "
        "the middle of a cell too; the mapping's identity never changes."
    ),
    "2.2-real-module": (
        "The mapping is the __dict__ of a module in sys.modules, so that pickle, dataclasses, "
        "typing.get_type_hints and inspect.getsource work on what cells define."
    ),
    "2.3-prelude": (
        "A cell may shadow a capability and del brings it back; revoking one takes effect at "
        "once, in functions already defined too."
    ),
    "2.4-results": (
        "The value of a cell is that of its last expression; _, __, ___ hold the last three "
        "values that are not None; __result__ is the value of a cell without a last expression."
    ),
    "2.4-future-flags": "from __future__ flags persist over cells.",
    "2.5-single-names": "Reading, binding or deleting one name is atomic from any thread.",
    "2.5-update": (
        "update_namespace is all or nothing against snapshots and other updates; the lock is "
        "never held over a callback, and a replaced value may come back in its __del__."
    ),
    "2.5-snapshot": "snapshot() is a shallow copy.",
    "2.5-cells": "Ordered cells never overlap and lose no update; concurrent ones can.",
    "2.5-atomic": (
        "A cell with atomic=True is atomic against its own failure: on error, cancel, timeout and "
        "interrupt every name whose value differs is put back, in every context; objects mutated "
        "in place are not. The result and the event say so."
    ),
    "2.5-atomic-others": (
        "What another cell or the host wrote meanwhile stays: cells that have ended, nested ones, "
        "cells that still run; written over by the failing cell, it is what is put back."
    ),
    "2.5-atomic-given-up": (
        "An atomic cell that is given up is rolled back when control returns, and what it writes "
        "later is its own; one that ends at that moment has one outcome."
    ),
    "2.5-atomic-coroutines": (
        "Coroutines that a failed atomic cell has bound are closed unless somebody holds them; the "
        "registers of coroutines and functions are what they were."
    ),
    "2.5-atomic-lock": (
        "A roll-back is all or nothing against snapshots and updates; no object is dropped under "
        "the lock."
    ),
    # three contexts
    "3.1-one-language": (
        "Top-level await, async for, async with and async comprehensions mean the same in all "
        "contexts; line and column numbers stay as they were."
    ),
    "3.1-nested-bodies-untouched": "Nested async def bodies are never touched.",
    "3.2-context-variables": "A ContextVar set in a cell, after an await too, is set in the next.",
    "3.2-scopes": (
        "A TaskGroup, timeout or anyio cancel scope entered in one cell can be left in a later one."
    ),
    "3.2-concurrent": (
        "A concurrent cell has a copy of the context variables, and no part in the scopes of the "
        "others; a nested one shares both with its parent."
    ),
    "3.2-current-task": "current_task() is stable.",
    "3.2-cancel-ours": (
        "Cancelling a cell cancels what it is doing, not the task; it is uncancelled at the "
        "cell's end."
    ),
    "3.2-cancel-shutdown": "A cancel made while the loop is not running ends the session.",
    "3.2-cancel-idle": (
        "A scope's cancel that comes while the session is idle stays pending, is not swallowed, "
        "and the idle wait does not spin on it."
    ),
    "3.2-cancel-stray": "With no scope open a cancel is absorbed at the cell's end.",
    "3.3-home-thread": (
        "Ordered thread cells run in one long-lived thread, never the loop's default executor; "
        "thread-locals and thread-bound objects persist."
    ),
    "3.3-awaits-in-home-task": "What a thread cell awaits, the home task awaits for it.",
    "3.3-other-threads": (
        "Any other thread that session code starts has a task of its own for what it awaits, and "
        "the context variables of its start."
    ),
    "3.4-order": (
        "Cells of a session run one at a time, first come first served, over all contexts."
    ),
    "3.4-concurrent": (
        "concurrent=True lets a cell run beside the others, in its own task or thread, with a "
        "copy of the context variables."
    ),
    "3.4-nested": (
        "A nested cell runs at once; its parent's outcome waits for it, and it cannot deadlock "
        "with its parent."
    ),
    "3.5-idioms": (
        "gather over create_task, wait, wait_for, as_completed, timeout, TaskGroup, "
        "run_in_executor, futures made by hand and anyio's groups work in a thread cell that "
        "awaits."
    ),
    "3.5-plain-thread": (
        "A thread cell that does not await sees no running loop; libraries that run a loop of "
        "their own work there."
    ),
    "3.5-thread-view": "A thread cell that awaits sees the home loop through a thread-safe view.",
    "3.5-spawn": (
        "spawn(coroutine) starts a task of session code from any context and thread: at once while "
        "a thread computes on, owned by the session, with the caller's context variables."
    ),
    "3.5-call-on-loop": (
        "call_on_loop(fn, *args) calls on the loop's thread; what comes of it comes back."
    ),
    "3.5-own-loops": (
        "On loops that are ours plain calls are safe on every thread, and wake the loop at once."
    ),
    "3.6-routing": (
        "The default is async everywhere; auto means async when the compiled cell is a "
        "coroutine, else thread."
    ),
    "3-other-loop": "A session is used from another loop in another thread.",
    # crossing the boundary
    "4.1-run-sync": (
        "run_sync works at any depth: in a sorted key, a property, __init__, a comprehension, a "
        "generator, a sync function called by an async one."
    ),
    "4.1-refusals": (
        "Where run_sync cannot work it raises an error of its own that says what to do instead, "
        "and closes the coroutine it was given."
    ),
    "4.1-portal-rules": (
        "A portal belongs to one task; errors move as values with their traceback; a destroyed "
        "task's cell gets GeneratorExit and no more waits."
    ),
    "4.1-debuggers": (
        "sys.settrace, sys.setprofile, sys.monitoring, coverage and debuggers are left working "
        "over run_sync."
    ),
    "4.2-async-functions": (
        "Async functions stay what they are, persist, and are called from every context."
    ),
    "4.2-call": (
        "The host calls a function of the namespace by name; a call is a cell in all respects: "
        "order, number, events, output, deadline, interrupt, nesting, contexts."
    ),
    "4.4-loop-bound-objects": (
        "Loop-bound objects have one home: the home loop, from whichever context they are used."
    ),
    # ownership
    "5.1-ledger": (
        "Every coroutine, task, async generator and thread that session code makes is listed with "
        "the cell and line that made it, by name or container at the end of a cell, when it "
        "begins, or by a census of all objects."
    ),
    "5.1-weak": "Finished entries of the ledger go; what nobody holds is not pinned.",
    "5.2-adoption": (
        "A bare coroutine bound to a name becomes a task of the home loop; all names that held "
        "it are rebound; the value of a cell counts as a name."
    ),
    "5.2-adopted-tasks-accepted": (
        "create_task, ensure_future and run_sync of session code accept an adopted task."
    ),
    "5.2-containers": "Coroutines inside containers are recorded, not started, to a bounded depth.",
    "5.2-late-loop": "Without a running loop a coroutine is kept and adopted once there is one.",
    "5.2-policies": "The policy can also be hold (record only) or close.",
    "5.2-validation": "Validation reports unawaited coroutines and cancelled tasks, with warnings.",
    "5.3-settle": (
        "await_pending_coroutines returns {name: result}; a name still bound to its task gets "
        "the result; a timeout leaves the rest pending."
    ),
    "5.3-failures": (
        "A failed one stays bound to its finished task and its error is reported, never stored "
        "as a value."
    ),
    "5.3-own-tasks": "Tasks made with create_task are never replaced, unless unwrap_tasks=True.",
    "5-cleanup": (
        "cleanup_coroutines cancels what is owned, waits within a bound, closes what never "
        "started and reports what would not end."
    ),
    "close": (
        "close() ends what runs, is idempotent and reports; a session dropped without it is "
        "collected with a ResourceWarning."
    ),
    # output, time and errors
    "6.1-output": (
        "Output is routed by context variable to the cell that caused it, late output included; "
        "code of no session prints as ever; it is bounded."
    ),
    "6.1-ways-to-write": (
        "print, write, writelines, bytes to the buffer, warnings and uncaught errors all go to "
        "the cell, surrogates and carriage returns included."
    ),
    "6.1-bytes": "Bytes are decoded as they come, in order with the text of their stream.",
    "6.1-logging": (
        "What a cell logs goes to the cell, by a handler made before the session or in it."
    ),
    "6.1-swapped-streams": (
        "A redirection in a cell holds across an await and for nobody else; a host that swaps "
        "its own streams takes nothing from a cell."
    ),
    "6.1-late-output": (
        "What tasks and threads of an ended cell write is that cell's, or the running cell's "
        "where the session says so."
    ),
    "6.1-batches": (
        "A lone line is sent at once, lines that come fast come together; both streams stay in "
        "order, and output comes before the outcome."
    ),
    "6.1-back-pressure": (
        "A thread waits for a full transport; where waiting would block the loop the excess is "
        "dropped, with an OutputDropped event and a line in the stream."
    ),
    "6.1-bounded": "What is kept for a result, and what is held back, is bounded.",
    "6.1-queue": "QueueTransport hands events to a reader in any loop or thread, and is bounded.",
    "6.1-display": (
        "display() and the value's rich form follow the _repr_*_ protocol; displays come in "
        "order with output, from all contexts."
    ),
    "6.2-timeout": (
        "timeout=: control returns at the deadline, for awaits, thread cells, and Python code "
        "on a main-thread loop."
    ),
    "6.2-timeout-values": (
        "A timeout is a number of seconds that is not negative, or None; all else is refused and "
        "nothing is run. Infinity lifts the session's default."
    ),
    "6.2-given-up": (
        "A cell that does not end when it is told to is given up: its thread or task is retired, "
        "and the home knows of it until its code has really ended."
    ),
    "6.2-matrix": (
        "Code of every kind, in each context, on a loop in the main thread and in another: stopped "
        "at its deadline, given up, or seen to keep the loop."
    ),
    "6.2-loop-blocked": (
        "A loop that stands still is reported after a settable delay, with the cell and the stack; "
        "one that goes round is left alone."
    ),
    "6.2-interrupt": "An interrupt stops what runs and never hits the next cell.",
    "6.2-no-exit-of-host-loop": (
        "SystemExit and KeyboardInterrupt of a task of session code never leave the host's loop; "
        "whoever awaits the task gets the error that a cell would give its host."
    ),
    "6.3-tracebacks": (
        "The user's exceptions arrive as themselves, with their source lines and without our "
        "frames."
    ),
    "6.4-errors": "Ours form one tree; a refused call changes nothing.",
    "4.5-deadlocks": (
        "A wait that cannot end raises with both sides named, or is bounded by the cell's timeout."
    ),
    "5.4-failures": (
        "A failed task that is dropped without anybody's having asked for its error is told "
        "promptly, as an event and in the output of its cell; without a transport the host hears."
    ),
    "5.4-unawaited": (
        "A coroutine that is dropped unawaited is told in the output of the cell that made it, "
        "whose line is named; one that is no session's warns as ever."
    ),
    "5.4-threads": (
        "A thread of a session that dies of an exception is told in the output of its cell."
    ),
    "5.5-reset": (
        "reset() ends what is owned, children before parents, within a bound, and brings names, "
        "flags, history, sources, thread and context variables back to what they were at first; "
        "it is safe while cells run and when called from a cell, and reports what would not end."
    ),
    "5.5-close": (
        "close() is bounded in time, idempotent, safe while cells run and when called from a cell, "
        "and reports what would not end."
    ),
    "5.5-leaks": (
        "Of a closed session nothing is left: no object of its namespace, no thread, task, "
        "descriptor, source or module; what others still hold is named in the report."
    ),
    "4-given": (
        "Capabilities and interceptors that cannot be given are refused by name, and nothing stays."
    ),
    "4-stress": "100,000 mixed crossings from threads and tasks at once leave nothing behind.",
    "6.5-hooks": (
        "Hooks go in with the first session and out with the last, call what they found and "
        "leave a later patch by others in place."
    ),
    "results": (
        "The result carries value, error, stdout, stderr, names bound and deleted, whether they "
        "are exact, coroutines adopted, context, duration; unwrap()."
    ),
    "events": "CellStarted, Output, CellFinished and the rest go to the transport in order.",
    "9-report": (
        "session.report() says in a few lines how many cells there were and how they ended, what "
        "they have made and left, the names and the memory."
    ),
    "9-log": (
        "What happens is logged under isthmus.*, with the session, the cell and the rest as "
        "attributes of the record, and outside of cells; a reset and the end are events too."
    ),
    # the worker
    "7.1-same-interface": (
        "A session in a process of its own has the interface of one in this process: cells in "
        "three contexts, names, functions, events, on every kind of host loop."
    ),
    "7.2-one-thread": (
        "Output, outcomes and calls are written by the thread that makes them: what was printed is "
        "out while C code holds the interpreter, and a thread does not wait for a hogged loop."
    ),
    "7.3-hostile": (
        "A child that is silent, speaks garbage or another version, or never starts, ends in a "
        "named error in bounded time, and as no process."
    ),
    "7.3-descriptors": (
        "Whatever code writes to descriptors 0 to 2, from C and from child processes too, is the "
        "output of its cell, in order; closing them or forking does not touch the wire."
    ),
    "7.4-values": "Values cross plain, else pickled, else as their repr, and never fail a cell.",
    "7.4-trust": (
        "Pickles of a worker are loaded where the host has asked for them, and of one that is not "
        "trusted none are."
    ),
    "7.4-large": (
        "Large memory is copied once by its sender and mapped by its receiver, in both directions; "
        "it is freed with the last view, and what is hostile or does not fit is refused by name."
    ),
    "7.4-capabilities": (
        "Capabilities and input() call back to the host from every context, at the same time, "
        "through the interceptors, and are cancelled with their cell."
    ),
    "7.5-death": (
        "Death has a cause (exit code, signal) and carries the last output and the cells; all who "
        "wait hear of it at once; the session can be restarted."
    ),
    "7.5-memory": (
        "A worker that its control group has ended for want of memory is said to have died of that."
    ),
    "7.5-faults": (
        "A worker that ends in any way in any state of the protocol, and a child that does not "
        "keep to it, end in a named error within a bound; nothing is left."
    ),
    "7.5-time": (
        "In a worker control returns at the deadline always: what can be stopped is, and the "
        "namespace stays; what holds the interpreter is killed after a grace period."
    ),
    "7.5-limits": "A worker has its limits; passing them is an error or a named death.",
    "7.5-orphans": (
        "The worker ends with its host, whatever it does, and what its cells have started with it; "
        "closing leaves no process."
    ),
    "7.6-forked": (
        "A fork server forks workers that are like started ones, and that leave nothing behind, "
        "thousands in a row."
    ),
    "7.6-fork-server-fails": (
        "A fork server that cannot import, has died, is busy or closed is a named error at once."
    ),
    "7.7-pool": (
        "A pool gives workers that wait to sessions in the order of coming, each to one, never one "
        "that has died; it has limits, counts, and an end with a report."
    ),
    "7.7-reset": (
        "A worker that is reset is, for the next session, what it was before the first: what one "
        "session was, has done and says last is not seen by the next. Where that cannot be, or "
        "after as many sessions as it may have, it is replaced."
    ),
    # asyncio.run in a cell
    "10-asyncio-run": (
        "asyncio.run and asyncio.Runner in session code run a task of the home loop to its end, in "
        "every context: what begins inside ends with it, and nothing else; other code gets what "
        "was there before."
    ),
    "10-run-until-complete": (
        "run_until_complete of the running home loop waits in session code; run_forever is refused "
        "by name."
    ),
    # bad input
    "bad-syntax": "Syntax errors and null bytes.",
    "bad-empty": "An empty cell, a cell of only comments, something that is no text.",
    "bad-large": "10 MB of source.",
    "bad-deep": "A deeply nested expression.",
    "bad-surrogates": "Surrogates in the text.",
    "bad-module-names": "A cell that deletes __builtins__ or __name__.",
    "bad-asyncio": "A cell that rebinds asyncio.",
    "bad-exceptions": (
        "A cell that calls sys.exit, raises KeyboardInterrupt, GeneratorExit or CancelledError."
    ),
    "bad-recursion": "A cell that recurses without end.",
    "bad-repr": "A result whose __repr__ raises.",
    "bad-del": "A value whose __del__ raises or comes back.",
    "bad-options": "A timeout of nothing.",
    "bad-closed-loop": "set_event_loop with a closed loop.",
    "bad-after-close": "execute after close.",
    "bad-two-loops": "Two sessions on two loops in two threads.",
    "bad-hostile": (
        "Session code that breaks what it shares with the host: both go on; what cannot be "
        "survived in one process ends it at once, and says why."
    ),
    "bad-transport": "A transport that raises or is slow.",
    # the package
    # the worker
    "7.3-frames": "Frames are length-prefixed; any split of the stream gives the same messages.",
    "7.3-messages": (
        "Messages are MessagePack, survive the way whatever text they hold, and what a newer peer "
        "adds to one is skipped; frames of earlier releases can be read."
    ),
    "7.3-malformed": (
        "A malformed, truncated or oversized frame ends in ProtocolError and in nothing else, and "
        "does not take more memory than has arrived."
    ),
    "7.3-limits": "Each side says what it takes; more is not sent, and refused where it comes.",
    "7.3-turns": (
        "A table says who may send what when. What is out of turn changes nothing, and messages "
        "that cross on their way are never out of turn."
    ),
    "7.3-versions": "Peers without a common version tell each other so; no session is opened.",
    "7.3-page": "docs/protocol.md and the code say the same.",
    "7.4-plain": "Plain values come back as they were, type for type.",
    "7.4-pickle": (
        "What is not plain goes as a pickle, else as its repr, marked as such; nothing about a "
        "value fails its cell. It stays packed until it is asked for, and a pickle that is not "
        "trusted is neither made nor loaded."
    ),
    "7.4-buffers": "Large memory goes beside the message, and is copied by neither side.",
    "7.4-shared": "A buffer may be a descriptor of shared memory beside the stream.",
    "7.4-failures": "Exceptions arrive with type, message and traceback; ours as themselves.",
    "8-blocking-session": (
        "BlockingSession is a session for hosts without a loop: the same interface without await, "
        "over a background loop with one owner; used from several threads; nothing stays."
    ),
    "8-names": (
        "The host gets, sets and deletes single names, and sees them all in a live, read-only view."
    ),
    "8-word-for-word": "The block of code in the contract holds word for word.",
    "9-floors": "Imports go strictly down the floors.",
    "9-public-names": (
        "The package re-exports its public names, sorted, each with a docstring whose errors "
        "can be imported."
    ),
    "9-boundaries": "except Exception stands only at named boundaries.",
}
