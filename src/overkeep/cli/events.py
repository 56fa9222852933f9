# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep events`."""

from __future__ import annotations

import datetime as dt
import time
from typing import Annotated, Any

import typer

from overkeep.api.documents import EventOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.exits import ControllerUnreachable
from overkeep.cli.output import AsJson
from overkeep.controller.events import Level
from overkeep.errors import BadRequest

_RETRY_PAUSE = 2.0
_UNITS = {"m": 60, "h": 3600, "d": 86400}


def events(  # noqa: PLR0913 - the options of a command
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    workload: Annotated[str | None, typer.Option(help="Only of this workload, by name or id.")] = None,
    vm: Annotated[str | None, typer.Option(help="Only of this VM, by name or id.")] = None,
    point: Annotated[str | None, typer.Option(help="Only of this restore point.")] = None,
    host: Annotated[str | None, typer.Option(help="Only of this host.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, or of those that begin so: `job`.")] = None,
    level: Annotated[Level | None, typer.Option(help="Only this level and worse.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from then on: a time, or `90m`, `12h`, `7d` ago.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest.")] = 50,
    as_json: AsJson = False,
) -> int:
    """Show what happened, oldest first."""
    wanted = {"job": job, "workload": workload, "vm": vm, "point": point, "host": host, "kind": kind, "level": level}
    with Client() as client:
        start = _moment(since) if since is not None else None
        newest = client.get("/api/v1/events", list[EventOut], limit=1) if follow else []
        found = client.get("/api/v1/events", list[EventOut], since=start, limit=limit, **wanted)[::-1]
        if as_json and not follow:
            output.documents(found)
            return exits.OK
        for event in found:
            _show(event, as_json=as_json)
        if follow:
            seen = max((event.seq for event in (*newest, *found)), default=0)
            _follow(client, wanted, seen, as_json=as_json)
    return exits.OK


def _follow(client: Client, wanted: dict[str, Any], seen: int, *, as_json: bool) -> None:
    """Show what comes after a number, for ever; a controller that is restarted is waited for."""
    number = str(seen)
    told = False
    while True:
        try:
            for message in client.stream("/api/v1/events/stream", number=number, **wanted):
                told, number = False, message.number or number
                _show(EventOut.model_validate_json(message.data), as_json=as_json)
        except ControllerUnreachable as error:
            if not told:
                output.complain(f"{error} It is tried again.")
                told = True
        time.sleep(_RETRY_PAUSE)


def _show(event: EventOut, *, as_json: bool) -> None:
    if as_json:
        output.say(event.model_dump_json())
        return
    level = "" if event.level is Level.INFO else f" {event.level}:"
    output.say(f"{output.instant(event.time)} {event.kind}{level} {event.text}")


def _moment(text: str) -> str:
    """A time in ISO 8601, in UTC unless it says otherwise, or so long ago."""
    count, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS:
            ago = dt.timedelta(seconds=int(count) * _UNITS[unit])
            return (dt.datetime.now(dt.UTC) - ago).isoformat()
        found = dt.datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).isoformat()
    except (ValueError, OverflowError) as error:
        raise BadRequest(what=f"{text!r} is no time", todo="give one as 2026-11-22T18:00 or 12h") from error
