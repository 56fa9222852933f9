# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep targets` and `overkeep target …`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.documents import AcceptIn, TargetOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.errors import Conflict

app = typer.Typer(no_args_is_help=True, help="Backup targets: where backups are kept.")

Name = Annotated[str, typer.Argument(metavar="TARGET", help="Name of the target in the controller's settings.")]


def targets(as_json: AsJson = False) -> int:
    """List the backup targets, and whether the controller can use them now."""
    with Client() as client:
        found = client.all("/api/v1/targets", TargetOut)
    if as_json:
        output.documents(found)
    else:
        rows = [
            (target.name, target.kind, "yes" if target.default else "no", _state(target), target.error)
            for target in found
        ]
        output.table(("TARGET", "KIND", "DEFAULT", "STATE", "WHY"), rows)
    return exits.OK if all(target.ok for target in found) else exits.FAILED


@app.command()
def show(target: Name, as_json: AsJson = False) -> int:
    """Show a target: where it is mounted from and what it holds."""
    with Client() as client:
        found = client.get(_path(target), TargetOut)
    output.documents(found) if as_json else _tell(found)
    return exits.OK if found.ok else exits.FAILED


@app.command()
def accept(
    target: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    as_json: AsJson = False,
) -> int:
    """Take the repository that a target holds now for its own, in place of the one it held before."""
    with Client() as client:
        now = client.get(_path(target), TargetOut)
        if now.found is None:
            raise Conflict(what=f"Target {target!r} cannot be looked at: {now.error}", todo="bring it back first")
        if not yes:
            held = now.found or "no repository (an empty one is made)"
            typer.confirm(f"{target} holds {held}, it held {now.repository}. Accept it?", abort=True, err=True)
        accepted = client.post(f"{_path(target)}/accept", TargetOut, AcceptIn(found=now.found))
    output.documents(accepted) if as_json else output.say(f"Target {target} holds {accepted.repository} from now on.")
    return exits.OK if accepted.ok else exits.FAILED


def _tell(target: TargetOut) -> None:
    output.say(f"{target.name} ({target.kind}{', default' if target.default else ''}): {_state(target)}")
    if target.error:
        output.say(target.error)
    place = f"{target.source} at {target.mountpoint}" if target.source else target.mountpoint
    output.say(f"Place: {place or '-'}")
    output.say(f"Repository: {target.repository or 'none yet'}")
    if target.found not in (None, target.repository):
        output.say(f"There now: {target.found or 'no repository'}")


def _state(target: TargetOut) -> str:
    return "ok" if target.ok else target.code


def _path(target: str) -> str:
    return f"/api/v1/targets/{quote(target, safe='')}"
