"""The command line. Owns options, help and exit status; the work is done by the other modules."""

from __future__ import annotations

import math
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

try:
    import click
except ImportError:
    sys.exit("the isthmus command needs two more packages: pip install 'isthmus[cli]'")

from isthmus.cli.channel import Channel
from isthmus.cli.json_lines import JsonLinesReport
from isthmus.cli.plain import PlainReport
from isthmus.cli.program import Program, UnusableInputError, load
from isthmus.cli.report import Report
from isthmus.cli.run import UNUSABLE, RunOptions, run_program
from isthmus.cli.script import CONTEXTS


class _Refusal(click.ClickException):
    exit_code = UNUSABLE

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"isthmus: {self.format_message()}", file=file, err=True)


def _show_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        try:
            click.echo(f"isthmus {version('isthmus')}")
        except PackageNotFoundError:  # run from a source tree that is not installed
            click.echo("isthmus, not installed")
        ctx.exit()


def _check_finite(
    ctx: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("give a number of seconds")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
def main() -> None:
    """One live Python namespace, on both sides of await."""


@main.command("run")
@click.argument("file", metavar="FILE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS...]")
@click.option(
    "--context", type=click.Choice(CONTEXTS), default="async", show_default=True,
    help="Where cells run that do not say: on the event loop, in a thread, or synchronously on the "
    "loop's thread; auto is async for cells that await and thread for the others.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), callback=_check_finite,
    metavar="SECONDS", help="Stop a cell that takes longer.",
)  # fmt: skip
@click.option(
    "--worker", is_flag=True,
    help="Run the cells in a process of their own: what crashes there fails its cell.",
)  # fmt: skip
@click.option("--keep-going", is_flag=True, help="Run the cells behind one that has failed.")
@click.option("--json", "as_json", is_flag=True, help="Print one event a line, as JSON.")
@click.option("--quiet", is_flag=True, help="Print only what the cells print, and errors.")
def run_command(
    file: str,
    arguments: tuple[str, ...],
    *,
    context: Any,
    timeout: float | None,
    worker: bool,
    keep_going: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the cells of FILE, one after another, in one namespace.

    FILE is a script, whose cells begin with lines like "# %%" or "# %% [thread] Title" (a script
    without such lines is one cell); a notebook (.ipynb, nbformat 4); or - for a script from
    standard input. Any cell may use await. The tags [async], [thread] and [sync] say where a cell
    runs; [markdown] cells are left out.

    The program sees what it would see under "python FILE": __name__ is "__main__", and __file__,
    sys.argv and sys.path[0] are its own.

    A coroutine that a cell leaves behind under a name runs in the background; at the end the run
    waits for it (as long as --timeout allows) and fails if it has failed. Tasks that the cells have
    started themselves are cancelled at the end, as asyncio.run() does. After a cell that failed, or
    sys.exit(), nothing is waited for.

    With --worker the cells run in a process of their own. One that crashes it fails; --keep-going
    goes on in another one, with an empty namespace. input() works, and sys.stdin is empty.

    Ctrl-C stops the cell and the run; a second one leaves without waiting for clean-up.

    Exit status: 0; 1 when a cell or a coroutine left behind has failed; 2 when the input or an
    option is unusable, before anything has run; 130 after Ctrl-C; N when a cell calls sys.exit(N),
    which ends the run, --keep-going or not.
    """
    if as_json and quiet:
        raise click.UsageError("--json and --quiet exclude each other")
    program = _load(file, keep_going)
    out, err = Channel(sys.stdout), Channel(sys.stderr)
    report = _make_report(out, err, program, as_json, quiet)
    options = RunOptions(context, timeout, keep_going, arguments, worker)
    sys.exit(run_program(program, options, report, out))


def _load(file: str, keep_going: bool) -> Program:
    """The program; a notebook with magics is refused, or its cells are left to fail one by one."""
    try:
        program = load(file, sys.stdin.buffer)
    except UnusableInputError as error:
        raise _Refusal(str(error)) from error
    magics = program.magics()
    if magics and not keep_going:
        raise _Refusal("\n".join([*magics, "nothing was run; --keep-going runs the other cells"]))
    for line in magics:
        click.echo(f"isthmus: {line}", err=True)
    return program


def _make_report(
    out: Channel, err: Channel, program: Program, as_json: bool, quiet: bool
) -> Report:
    if as_json:
        return JsonLinesReport(out, err, program.cells)
    if not out.isatty():
        return PlainReport(out, err, quiet=quiet)
    from isthmus.cli.terminal import TerminalReport  # rich is slow to import

    return TerminalReport(out, err, len(program.cells), quiet=quiet)


if __name__ == "__main__":
    main(prog_name="isthmus")
