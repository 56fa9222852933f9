# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep limit …`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.limit_documents import LimitIn, LimitOut
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.errors import BadRequest
from overkeep.model.admission import in_words

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
    as_json: AsJson = False,
) -> None:
    """Let so many VMs use a resource at once; what runs goes on."""
    body = LimitIn(capacity=None if slots == _DEFAULT else _number(slots))
    with Client() as client:
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


def _path(resource: str) -> str:
    return f"/api/v1/limits/{quote(resource, safe='')}"


def _tell(found: LimitOut, *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    default = " (the default)" if found.by_default else ""
    paused = "; it is paused, nothing new begins" if found.paused else ""
    output.say(f"Of {in_words(found.resource)}, {found.capacity} VMs are worked on at once{default}{paused}.")


def _show(found: list[LimitOut], *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    rows = [
        (
            limit.resource,
            str(limit.capacity),
            "default" if limit.by_default else "set",
            "yes" if limit.paused else "no",
            str(limit.used),
            str(limit.waiting),
        )
        for limit in found
    ]
    output.table(("RESOURCE", "VMS AT ONCE", "BY", "PAUSED", "IN USE", "WAITING"), rows)
