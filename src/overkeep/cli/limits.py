# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep limit …`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.limit_documents import LimitIn, LimitOut, LimitWindowDoc
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.errors import BadRequest
from overkeep.model.admission import Change, in_words, until_in_words

app = typer.Typer(no_args_is_help=True, help="Limits: how many VMs are worked on at once.")

_DEFAULT = "default"
Resource = Annotated[
    str,
    typer.Argument(
        metavar="RESOURCE",
        help="total, host:NAME, target:NAME or domain:NAME; host, target or domain for each without one of its own.",
    ),
]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the limits, what is used of them, and how many VMs wait."""
    with Client() as client:
        _show(client.all("/api/v1/limits", LimitOut), as_json=as_json)


@app.command("set")
def set_(
    resource: Resource,
    slots: Annotated[str, typer.Argument(metavar="VMS|default", help="How many VMs at once.")],
    window: Annotated[
        list[str] | None,
        typer.Option(
            help="Another number in a window of the week, as `mon-fri 08:00-18:00=1`, with 0 for none; several times. "
            "The first that is open counts; an empty one removes all."
        ),
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone of the windows, as Europe/Berlin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let so many VMs use a resource at once; what runs goes on. Windows that are not given stay."""
    capacity = None if slots == _DEFAULT else _number(slots)
    with Client() as client:
        before = client.get(_path(resource), LimitOut)
        windows = before.windows if window is None else tuple(_window(text) for text in window if text)
        body = LimitIn(capacity=capacity, windows=windows, zone=zone or (before.zone if before.windows else "UTC"))
        _tell(client.put(_path(resource), LimitOut, body), as_json=as_json)


@app.command()
def pause(resource: Resource, as_json: AsJson = False) -> None:
    """Let nothing new use a resource; what runs goes on."""
    with Client() as client:
        _tell(client.post(f"{_path(resource)}/pause", LimitOut), as_json=as_json)


@app.command()
def resume(resource: Resource, as_json: AsJson = False) -> None:
    """Let a resource be used again."""
    with Client() as client:
        _tell(client.post(f"{_path(resource)}/resume", LimitOut), as_json=as_json)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise BadRequest(what=f"{text!r} is no number of VMs", todo=f"give a number, or {_DEFAULT}")
    return int(text)


def _window(text: str) -> LimitWindowDoc:
    when, _, number = text.rpartition("=")
    if not when:
        raise BadRequest(what=f"{text!r} gives no limit in a window", todo="write it as `mon-fri 08:00-18:00=1`")
    return LimitWindowDoc(when=when.strip(), capacity=_number(number.strip()))


def _path(resource: str) -> str:
    return f"/api/v1/limits/{quote(resource, safe='')}"


def _tell(found: LimitOut, *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    default = " (the default)" if found.by_default else ""
    paused = "; it is paused, nothing new begins" if found.paused else ""
    now = f"{found.capacity} VMs are worked on at once{_until(found)}{default}{paused}"
    output.say(f"Of {in_words(found.resource)}, {now}.")
    for each in found.windows:
        output.say(f"{each.when} ({found.zone}): {each.capacity}")


def _until(limit: LimitOut) -> str:
    """` until fri 18:00 (Europe/Berlin), then 4`; empty when nothing changes by itself."""
    if limit.until is None or limit.then is None:
        return ""
    change = Change(at=limit.until, capacity=limit.then, zone=limit.zone)
    return f" {until_in_words(change)}, then {limit.then}"


def _show(found: list[LimitOut], *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    rows = [
        (
            limit.resource,
            f"{limit.capacity}{_until(limit)}",
            "default" if limit.by_default else "set",
            "yes" if limit.paused else "no",
            str(limit.used),
            str(limit.waiting),
        )
        for limit in found
    ]
    output.table(("RESOURCE", "VMS AT ONCE", "BY", "PAUSED", "IN USE", "WAITING"), rows)
