# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep targets` and `overkeep target …`."""

from __future__ import annotations

import time
from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.documents import MoverOut
from overkeep.api.target_documents import AcceptIn, ProbeIn, ProbeOut, TargetOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.errors import Conflict
from overkeep.model.capacity import Fill
from overkeep.units import MIB, human_size

_LOOK = 0.5  # seconds between two looks whether the points of a target have been read
_HERE = "controller"
_WRONG_OWNER = "Files must belong to 36:36 there; export with `all_squash,anonuid=36,anongid=36`."
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
def probe(
    target: Name,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="Only from this host; may be repeated. `controller` is this side."),
    ] = None,
    size: Annotated[int, typer.Option("--size", metavar="MIB", min=1, max=1024, help="MiB to write at most.")] = 64,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", min=0.1, max=15, help="Seconds to write, and to read.")
    ] = 10,
    as_json: AsJson = False,
) -> int:
    """Write to a target from the controller and from each host, one after the other, and measure it.

    What is written is removed again. The exit status is 0 when it works everywhere as it must, and 1 else.
    """
    found = []
    with Client(patience=3 * seconds + 30) as client:
        for name in host or _everywhere(client):
            asked = ProbeIn(host="" if name == _HERE else name, size=size * MIB, seconds=seconds)
            found.append(client.post(f"{_path(target)}/probe", ProbeOut, asked))
    output.documents(found) if as_json else _tell_probes(found)
    return exits.OK if all(one.ok for one in found) else exits.FAILED


def _everywhere(client: Client) -> list[str]:
    """The controller, and the hosts that are up."""
    movers = client.all("/api/v1/movers", MoverOut)
    return [_HERE, *(mover.host for mover in movers if mover.host_status == "up")]


def _tell_probes(found: list[ProbeOut]) -> None:
    output.table(("FROM", "STATE", "OWNER", "O_DIRECT", "SYNCED WRITE", "WRITE", "READ", "WHY"), map(_probe_row, found))


def _probe_row(probe: ProbeOut) -> tuple[str, ...]:
    return (
        probe.host or _HERE,
        "ok" if probe.ok else probe.code or "wrong-owner",
        probe.owner or "-",
        "-" if probe.direct is None else "yes" if probe.direct else "no",
        "-" if probe.synced_ms is None else f"{probe.synced_ms:.1f} ms",
        _speed(probe.write_speed),
        _speed(probe.read_speed),
        probe.error or ("" if probe.owned is not False else _WRONG_OWNER),
    )


def _speed(speed: int | None) -> str:
    return "-" if speed is None else f"{speed / MIB:.0f} MiB/s"


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
    if target.probes:
        output.say("Tried out with `overkeep target probe`, last:")
        _tell_probes(target.probes)


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
