# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep targets` and `overkeep target …`."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.documents import AcceptIn, TargetOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.errors import Conflict
from overkeep.model.capacity import Fill
from overkeep.units import human_size

_LOOK = 0.5  # seconds between two looks whether the points of a target have been read
_SPACE = ("SIZE", "USED", "FREE", "A DAY", "FULL IN")

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
            (target.name, target.kind, "yes" if target.default else "no", _state(target), *_space(target), target.error)
            for target in found
        ]
        output.table(("TARGET", "KIND", "DEFAULT", "STATE", *_SPACE, "WHY"), rows)
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


@app.command()
def rescan(
    target: Name,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")] = False,
    as_json: AsJson = False,
) -> int:
    """Read the restore points on a target anew, every manifest of them; lists stay as they are when that fails."""
    with Client() as client:
        found = client.post(f"{_path(target)}/rescan", TargetOut)
        while found.listing and not found.listing_error and not no_wait:
            time.sleep(_LOOK)
            found = client.get(_path(target), TargetOut)
    output.documents(found) if as_json else output.say(_listed(found))
    return exits.FAILED if found.listing_error else exits.OK


def _listed(target: TargetOut) -> str:
    """When the points of a target were read, and what keeps them from being read."""
    when = f"last read whole {output.instant(target.listed)}" if target.listed else "never read whole"
    if target.listing_error:
        return f"Points: {when}; they cannot be read now: {target.listing_error}"
    return f"Points: {when}{', being read now' if target.listing else ''}"


def _tell(target: TargetOut) -> None:
    output.say(f"{target.name} ({target.kind}{', default' if target.default else ''}): {_state(target)}")
    if target.error:
        output.say(target.error)
    place = f"{target.source} at {target.mountpoint}" if target.source else target.mountpoint
    output.say(f"Place: {place or '-'}")
    size, used, free, grows, days = _space(target)
    output.say(f"Size: {size}, used: {used}, free: {free}, grows by {grows} a day, full in: {days}")
    output.say(f"Repository: {target.repository or 'none yet'}")
    output.say(_listed(target))
    if target.found not in (None, target.repository):
        output.say(f"There now: {target.found or 'no repository'}")


def _state(target: TargetOut) -> str:
    if not target.ok:
        return target.code
    return "ok" if target.fill in (None, Fill.OK) else f"{target.fill}"


def _space(target: TargetOut) -> tuple[str, str, str, str, str]:
    if target.size is None or target.used is None or target.free is None:
        return ("-",) * 5
    percent = 100 * target.used / max(1, target.used + target.free)
    grows, days = target.grows_a_day, target.days_until_full
    return (
        human_size(target.size),
        f"{human_size(target.used)} ({percent:.0f} %)",
        human_size(target.free),
        "-" if grows is None else f"{'-' if grows < 0 else ''}{human_size(abs(grows))}",
        "-" if days is None else f"{days:.0f} days",
    )


def _path(target: str) -> str:
    return f"/api/v1/targets/{quote(target, safe='')}"
