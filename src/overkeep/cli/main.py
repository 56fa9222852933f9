# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep`: the commands, and how every error becomes one sentence and an exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import ValidationError

from overkeep import __version__
from overkeep.cli import (
    admin,
    check,
    completion,
    events,
    exits,
    jobs,
    limits,
    login,
    output,
    points,
    policies,
    scheduler,
    session,
    targets,
    workloads,
)
from overkeep.errors import OverkeepError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(login.login)
app.command()(login.logout)
app.add_typer(workloads.app, name="workload")
app.command()(workloads.backup)
app.add_typer(policies.app, name="policy")
app.add_typer(scheduler.app, name="scheduler")
app.add_typer(limits.app, name="limit")
app.command()(points.points)
app.command()(points.restore)
app.add_typer(points.app, name="point")
app.command()(targets.targets)
app.add_typer(targets.app, name="target")
app.add_typer(jobs.app, name="job")
app.command()(events.events)
app.command()(check.check)
app.command()(completion.completion)
app.command()(admin.movers)
app.add_typer(admin.app, name="admin")

_log = logging.getLogger(__name__)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.say(f"overkeep {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Back up and restore the virtual machines of oVirt, RHV and OLVM."""


def run() -> None:
    """Entry point; ends the process with the status of `main`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status (`overkeep.cli.exits`)."""
    completion.prepare()
    try:
        status = app(list(arguments), prog_name=completion.PROGRAM, standalone_mode=False)
        return status if isinstance(status, int) else exits.OK
    except OverkeepError as error:
        output.complain(f"overkeep: {error}")
        return exits.of(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except typer.Abort:
        return exits.INTERRUPTED
    except typer.TyperException as error:
        if told := _usage(error):
            output.complain(f"overkeep: {told}; see `overkeep --help`.")
        return exits.USAGE
    except ValidationError as error:  # of a document made from arguments; an answer's is told by the client
        output.complain(f"overkeep: {_unfit(error)}; see `overkeep --help`.")
        return exits.USAGE
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return exits.OK
    except Exception:  # noqa: BLE001 - the outermost of all: its traceback goes to a file, a sentence to the user
        where = _record()
        output.complain(f"overkeep: Something unexpected happened; the details are in {where}, please report them.")
        return exits.FAILED


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the arguments; empty when the help was shown instead."""
    told = getattr(error, "format_message", None)
    return str(told() if callable(told) else error).rstrip(".")


def _unfit(error: ValidationError) -> str:
    """Which argument cannot be used, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "an argument"
    return f"The value of {name} cannot be used ({first['msg'].lower()})"


def _record() -> str:
    """Write the traceback of the present exception beside the session and return where."""
    path = session.path().with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    _log.propagate = False
    _log.exception("a command failed unexpectedly")
    _log.removeHandler(handler)
    handler.close()
    return str(path)
