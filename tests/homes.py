"""Which tests run over both homes of a session, and why some of them do not. Owns that list.

A test of the contract that gets its sessions from the fixtures ``session`` and ``make_session``
runs with sessions in this process and with sessions in workers, with a worker of its own each; so
do those in the files of ``ALSO``. Listed is what runs in this process only, by what its code shows:
tests, and whole files. What has no session of these fixtures (an executor, a program of its own)
runs here too.

Over workers a test runs on asyncio's own loop alone: that of their cells is the worker's. There
each pair of contexts follows another one, and a test with cases of its own has each of them in one
context, in turn: three of nine, and one of three. So have the tests of ``ALSO``, one after another,
without cases too. With `ISTHMUS_ALL_LOOPS=1` all of them run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import CONTEXTS

HERE, WORKER = HOMES = ("here", "worker")
"""The homes that a session can have."""

_TESTS = Path(__file__).parent
_EVERY_CASE = bool(os.environ.get("ISTHMUS_ALL_LOOPS"))

ALSO = (
    "test_capabilities.py",
    "test_collector.py",
    "test_debuggers.py",
    "test_displays.py",
    "test_given_up.py",
    "test_interceptors.py",
    "test_interrupts.py",
    "test_late_output.py",
    "test_live_output.py",
    "test_loop_calls.py",
    "test_names.py",
    "test_portal.py",
    "test_printing.py",
    "test_queue_transport.py",
    "test_run_scope.py",
    "test_runners.py",
    "test_session.py",
    "test_session_report.py",
    "test_streams.py",
    "test_visitors.py",
)
"""Files outside tests/contract whose tests are about sessions of either kind."""


@dataclass(frozen=True)
class Reason:
    """Why a test cannot run over sessions in workers.

    Attributes:
        text: It.
        shown_by: A regular expression that such a test's code, with that of the fixtures and
            functions of its file that it uses, matches.
    """

    text: str
    shown_by: str


INSIDES = Reason(
    "it looks into the session's own objects, which a worker has in its own process",
    r"\.(manager|executor|namespace|view)\b",
)
SHARES = Reason(
    "it hands an object of this process to a cell; a worker gets a copy of it, or refuses it",
    r"update_namespace\b|\.set\(|run_call\(|\.call\(|inject_capability\(",
)
LIVE = Reason(
    "it takes a live object of a cell; of a worker's the host gets a copy or a description",
    r"await session\.(get|execute|run|run_call|call|snapshot)\(|\.value\b|\.error\b",
)
PROCESS = Reason(
    "it is about this process: its hooks, its loop, its modules, its log, its context variables",
    r"sys\.|asyncio\.|caplog|capsys|monkeypatch|ContextVar|gc\.|linecache",
)

BESIDE = Reason(
    "it has a cell and one nested in it take turns; in a worker they run beside each other",
    r"nested",
)
ENDS = Reason(
    "it has code of a cell close the session, or reset it from a task or thread, and go on: in a "
    "worker that ends with the rest",
    r"session\.(close|reset)\b",
)
HOST = Reason(
    "it has a capability run where its caller does; a worker's runs on the loop of the host",
    r"inject_capability\(",
)
TRANSPORT = Reason(
    "its transport waits in send(), which for a worker's events is called on the host's loop",
    r"transport=",
)

CLOSED = Reason(
    "it asks a session that is closed what it has done, which ended with its worker",
    r"\.close\(\)\n.*\breport\(\)",
)

ROOM = Reason(
    "its transport is full: a worker sends its output whether there is room or not",
    r"Valve|wait_writable",
)

HERE_ONLY_FILES: dict[Reason, tuple[str, ...]] = {
    INSIDES: ("test_home.py", "test_namespace_view.py", "test_rollback.py"),
    SHARES: ("test_loop_watch.py", "test_tracing.py"),
    PROCESS: (
        "test_failure_hooks.py",
        "test_generator_hooks.py",
        "test_runner_hooks.py",
        "test_shared_loop.py",
        "test_task_factory.py",
    ),
    ROOM: ("test_back_pressure.py",),
}
"""Files whose sessions live in this process only, by reason."""

HERE_ONLY: dict[Reason, dict[str, tuple[str, ...]]] = {
    INSIDES: {
        "test_capabilities.py": ("test_a_kept_reference_is_refused_after_revocation",),
        "test_printing.py": ("test_a_function_of_a_cell_that_the_host_calls_prints_for_the_host",),
        "test_names.py": (
            "test_the_register_of_async_functions_follows",
            "test_the_view_can_be_read_after_close",
            "test_the_view_is_live_while_a_thread_binds_and_deletes",
        ),
        "test_atomic.py": (
            "test_coroutines_that_a_failed_cell_has_bound_are_closed",
            "test_two_that_fail_beside_each_other_leave_nothing_of_either",
        ),
        "test_coroutines.py": (
            "test_a_closed_loop_is_refused_and_the_binding_stays",
            "test_another_loop_is_refused_while_the_session_lives",
            "test_cleanup_cancels_adopted_coroutines_and_waits_for_them",
            "test_coroutines_in_containers_are_recorded_and_not_started",
            "test_held_coroutines_are_closed_at_cleanup_and_at_close",
            "test_validation_reports_what_lies_about",
            "test_what_would_not_end_is_reported_and_stays_pending",
        ),
        "test_deadlines.py": ("test_an_executor_refuses_it_too",),
        "test_one_namespace.py": (
            "test_the_mapping_keeps_its_identity",
            "test_the_mapping_is_that_of_a_module_in_sys_modules",
            "test_the_host_pickles_an_instance_of_a_class_of_a_cell",
            "test_the_register_of_async_functions_follows_the_namespace",
            "test_a_host_thread_reads_and_binds_single_names_while_a_cell_runs",
        ),
        "test_order.py": ("test_the_mapping_can_be_read_after_close",),
        "test_reset.py": ("test_the_namespace_is_what_it_was_at_first",),
        "test_what_is_owned.py": (
            "test_a_failed_task_stays_until_somebody_asks_for_its_error",
            "test_what_has_ended_leaves_a_count_and_nothing_else",
        ),
        "test_visitors.py": ("test_a_thread_that_is_interrupted_while_it_waits_gives_its_wait_up",),
        "test_loop_calls.py": ("test_a_cell_that_was_cancelled_while_it_computed_spawns_nothing",),
        "test_runners.py": ("test_a_function_that_the_host_calls_in_a_task_of_its_own_is_refused",),
    },
    SHARES: {
        "test_capabilities.py": (
            "test_an_object_for_async_with_stays_what_it_is",
            "test_it_sees_the_callers_context_variables",
        ),
        "test_interceptors.py": ("test_journal",),
        "test_names.py": (
            "test_a_coroutine_that_is_set_is_adopted_and_stays_pending_when_its_name_goes",
            "test_a_deleted_value_may_come_back_in_its_del",
            "test_a_finished_task_is_forgotten_with_its_name",
            "test_what_is_set_and_got_is_the_object_itself",
        ),
        "test_atomic.py": (
            "test_a_coroutine_that_somebody_holds_is_not_closed",
            "test_a_cell_that_is_given_up_is_rolled_back_at_once_and_what_it_writes_later_is_its_own",
            "test_a_cell_that_still_runs_keeps_its_names_but_for_those_that_the_failing_one_binds",
        ),
        "test_bad_input.py": ("test_a_destructor_that_raises_does_not_change_the_outcome",),
        "test_closing.py": (
            "test_one_that_comes_while_threads_are_waited_for_gets_the_same_report",
            "test_a_second_close_of_one_that_was_cancelled_ends_the_rest",
        ),
        "test_coroutines.py": (
            "test_update_namespace_adopts_at_once_on_the_loop",
            "test_update_namespace_from_another_thread_adopts_soon",
            "test_update_namespace_from_another_loop_adopts_on_the_home_loop",
        ),
        "test_home_task_and_thread.py": (
            "test_variables_of_the_host_are_seen_and_cells_do_not_change_them",
        ),
        "test_one_namespace.py": ("test_a_replaced_value_may_come_back_in_its_destructor",),
        "test_order.py": (
            "test_context_variables_of_a_nested_cell_reach_its_parent_in_the_same_task",
        ),
        "test_refused_crossings.py": (
            "test_in_a_callback_of_the_loop",
            "test_in_a_greenlet_that_does_not_come_from_the_cell",
            "test_for_a_future_of_another_loop",
        ),
        "test_streams.py": (
            "test_a_handler_made_before_the_session_writes_to_the_cell_that_logs",
            "test_a_handler_made_in_a_cell_writes_for_the_host_too",
        ),
        "test_runners.py": ("test_the_loop_of_another_session_is_refused_by_name",),
        "test_reset.py": (
            "test_what_would_not_end_is_named",
            "test_a_thread_that_another_one_starts_as_it_ends_gets_its_answer_and_is_waited_for",
        ),
        "test_scopes_of_concurrent_cells.py": (
            "test_a_nested_cell_shares_the_variables_of_its_parent",
        ),
    },
    LIVE: {
        "test_capabilities.py": (
            "test_an_error_of_a_capability_arrives_as_itself",
            "test_it_runs_on_the_loop_where_it_was_registered",
        ),
        "test_displays.py": ("test_the_rich_form_of_a_value_is_computed_only_when_asked",),
        "test_atomic.py": (
            "test_a_cell_that_fails_leaves_every_name_as_it_was",
            "test_a_cell_that_succeeds_lets_go_of_what_it_has_replaced",
            "test_what_an_earlier_cell_left_behind_is_settled_as_if_the_cell_had_not_been",
        ),
        "test_calls.py": ("test_what_a_function_returns_is_awaited_once_and_keeps_its_identity",),
        "test_coroutines.py": (
            "test_a_value_that_is_also_bound_is_one_task",
            "test_the_value_counts_where_history_is_off_too",
            "test_finished_coroutines_that_no_name_holds_are_forgotten",
        ),
        "test_one_namespace.py": (
            "test_a_snapshot_is_a_shallow_copy_of_the_users_names",
            "test_history_pins_three_values_at_most",
        ),
        "test_results.py": ("test_a_result_is_held_by_nobody_else",),
        "test_streams.py": (
            "test_a_cells_buffer_is_the_hosts_to_the_host",
            "test_a_cells_stream_outlives_its_session_and_follows_the_host",
        ),
    },
    PROCESS: {
        "test_printing.py": ("test_what_the_host_has_put_in_the_place_of_print_stays",),
        "test_failures.py": (
            "test_it_is_told_of_that_cell_when_the_collector_drops_it_in_another_session",
            "test_only_code_of_the_session_keeps_track_of_origins",
            "test_without_a_transport_the_hook_of_the_host_hears_of_a_thread_too",
        ),
        "test_one_namespace.py": (
            "test_sessions_live_side_by_side_under_one_name",
            "test_updates_and_snapshots_from_other_threads_do_not_tear",
        ),
        "test_results.py": (
            "test_without_hooks_output_is_left_alone",
            "test_the_debug_log_and_the_event_say_who_updated_which_names",
        ),
        "test_given_up.py": (
            "test_the_task_that_serves_a_concurrent_thread_cell_does_not_outlive_it",
            "test_a_nested_cell_on_its_callers_stack_is_waited_for",
        ),
        "test_session.py": (
            "test_a_thread_that_the_system_does_not_give_is_an_error_of_the_cell_alone",
        ),
        "test_session_report.py": (
            "test_each_cell_can_be_logged_with_its_numbers",
            "test_a_nested_cell_is_logged_outside_of_the_cell_that_runs_it",
            "test_a_reset_and_the_end_are_events_and_in_the_log",
        ),
    },
    BESIDE: {
        "test_atomic.py": ("test_a_nested_cell_is_rolled_back_to_what_its_parent_had",),
        "test_given_up.py": ("test_a_thread_cell_is_given_up_while_it_waits_for_a_nested_one",),
    },
    ENDS: {
        "test_closing.py": (
            "test_a_cell_can_close_it_and_goes_on_to_its_own_end",
            "test_a_nested_cell_can_close_it",
        ),
        "test_reset.py": ("test_a_task_and_a_thread_can_reset_the_session",),
    },
    CLOSED: {
        "test_session_report.py": ("test_a_closed_session_says_so_in_its_report",),
    },
    TRANSPORT: {
        "test_live_output.py": ("test_an_interrupt_waits_until_the_transport_has_taken_an_event",),
        "test_results.py": ("test_a_slow_transport_slows_its_cell_only",),
    },
    HOST: {
        "test_capabilities.py": (
            "test_a_sync_capability_runs_in_the_calling_thread",
            "test_on_the_home_loop_it_runs_in_the_callers_task",
        ),
    },
}
"""Tests that run over sessions in this process only, by reason and file."""


def has_both_homes(metafunc: pytest.Metafunc) -> bool:
    """Whether a test runs with sessions of either kind."""
    path, name = metafunc.definition.path, metafunc.function.__name__
    if "make_session" not in metafunc.fixturenames or _is_listed(path.name, name):
        return False
    return path.parent == _TESTS / "contract" or path.name in ALSO


def _is_listed(file: str, test: str) -> bool:
    return any(test in files.get(file, ()) for files in HERE_ONLY.values())


def needed(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """The cases that are to run: in this process all, and in workers those whose turn it is."""
    values: dict[tuple[str, str], list[object]] = {}
    for item in items:
        parameters = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        if parameters.pop("home", HERE) == HERE:
            yield item
        elif parameters.pop("flavour", "asyncio") == "asyncio":
            test = item.nodeid.partition("[")[0]
            numbers = {
                name: _number(values.setdefault((test, name), []), value)
                for name, value in parameters.items()
            }
            file = test.partition("::")[0]
            if "/contract/" not in file:
                numbers["test"] = _number(values.setdefault((file, ""), []), test)
            if _EVERY_CASE or _is_its_turn(numbers):
                yield item


def _number(values: list[object], value: object) -> int:
    """Which of *values* it is, which gets it if need be. (pytest's own numbers may be of cases.)"""
    for number, known in enumerate(values):
        if known is value or (isinstance(value, str) and known == value):
            return number
    values.append(value)
    return len(values) - 1


def _is_its_turn(numbers: Mapping[str, int]) -> bool:
    if {"first", "second"} <= numbers.keys():
        return numbers["second"] == (numbers["first"] + 1) % len(CONTEXTS)
    cases = [number for name, number in numbers.items() if name != "context"]
    if not cases or "context" not in numbers:
        return True
    return numbers["context"] == sum(cases) % len(CONTEXTS)
