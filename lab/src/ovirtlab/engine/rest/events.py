# SPDX-License-Identifier: GPL-3.0-or-later
"""`/events`: the engine's log, newest first, and what others write into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.events import Event, Severity
from ovirtlab.engine.faults import NotFound, incomplete, invalid, malformed
from ovirtlab.engine.rest.bodies import Body, read_integer
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.search import Word
from ovirtlab.engine.state import SYSTEM, State

routes = Routes()

EXTERNAL_CODES: dict[str, int] = {"normal": 9801, "warning": 9802, "error": 9803, "alert": 9804}
LONGEST_MESSAGE = 10_000
_ABOUT = ("cluster", "data_center", "host", "storage_domain", "template", "user", "vm")
_SEARCHED = {"storage_domain": "storage", "data_center": "datacenter"}  # by these names in searches
_EXTERNAL_STATUSES = ("ok", "info", "warning", "error", "failure")


@routes.get("events")
async def list_events(call: Call) -> Collection:
    """Newest first unless sorted otherwise; `from` gives those with a higher index only."""
    after = call.integer("from")
    found = [event for event in call.context.state.events if after is None or event.index > after]
    return kind(call.context).listing(call, found[::-1])


@routes.get("events/{event}")
async def get_event(call: Call) -> Entity:
    return show(call, _event(call))


@routes.delete("events/{event}")
async def remove_event(call: Call) -> Done:
    call.require("audit_log_management", ("system", SYSTEM))
    call.context.state.events.remove(_event(call).index)
    return Done()


@routes.post("events")
async def add_event(call: Call) -> Created:
    """An external event; its `custom_id` is unique among those of its origin."""
    context, body = call.context, call.body
    call.require("inject_external_events", ("system", SYSTEM))
    severity, description, origin = body.text("severity"), body.text("description"), body.text("origin")
    custom_id = body.integer("custom_id")
    if not severity or not description or not origin or custom_id is None:
        raise incomplete("Event", "origin, severity, customId, description", "add")
    if severity not in EXTERNAL_CODES:
        raise malformed(f"The value '{severity}' isn't a valid log severity.")
    if origin.lower() == "ovirt":
        raise invalid("Cannot add External Event. Illegal origin for External Event: oVirt")
    if any(event.custom_id == custom_id and event.origin == origin for event in context.state.events):
        raise invalid("Cannot add External Event. External Event with this custom id already exists.")
    event = Event(
        index=context.state.events.next_index(),
        code=EXTERNAL_CODES[severity],
        severity=_severity(severity),
        description=description[:LONGEST_MESSAGE],
        time=context.clock.now(),
        correlation_id=body.text("correlation_id") or "",
        origin=origin,
        custom_id=custom_id,
        custom_data=body.text("custom_data") or "",
        flood_rate=body.integer("flood_rate") or 0,
        ids=_about(context, body, call.user),
    )
    _set_external_status(context, body)
    context.state.events.keep(event)
    return Created(lambda: show(call, event))


def show(call: Call, event: Event) -> Entity:
    fields: dict[str, Value] = {
        "description": event.description,
        "code": event.code,
        "correlation_id": event.correlation_id or None,
        "custom_data": event.custom_data or None,
        "custom_id": event.custom_id,
        "flood_rate": event.flood_rate,
        "index": event.index,
        "origin": event.origin,
        "severity": event.severity,
        "time": event.time,
    }
    for name, value in event.ids.items():
        if name in _ABOUT:
            fields[name] = _link(call.context.state, name, value)
    return Entity("event", fields, id=str(event.index), href=address("events", str(event.index)))


def _link(state: State, kind: str, key: str) -> Entity | None:
    """An object that an event is about, by id and name."""
    link = link_to(kind, key)
    if link is not None:
        link.fields = {"name": name_of(state, kind, key)}
    return link


def kind(context: Context) -> Kind[Event]:
    """How events are listed and found."""
    state = context.state

    def named(about: str) -> Callable[[Event], Word]:
        return lambda event: name_of(state, about, event.ids.get(about, ""))

    def about(*names: str) -> dict[str, Callable[[Event], Word]]:
        """The names and ids of objects, each under the words that clients use for it."""
        found: dict[str, Callable[[Event], Word]] = {}
        for name in names:
            word = _SEARCHED.get(name, name)
            found |= {f"event_{word}": named(name), f"{word}.name": named(name)}
            found |= dict.fromkeys((f"event_{word}_id", f"{word}.id"), _key(name))
        return found

    return Kind(
        tag="events",
        member="event",
        show=show,
        words={
            "severity": lambda event: event.severity,
            "type": lambda event: str(event.code),
            "message": lambda event: event.description,
            "correlation_id": lambda event: event.correlation_id,
            "origin": lambda event: event.origin,
            "custom_event_id": lambda event: event.custom_id,
            "time": lambda event: event.time,
            "deleted": lambda event: "false",
            "usrname": named("user"),
            "usrid": _key("user"),
            **about("vm", "host", "template", "storage_domain", "data_center", "cluster"),
        },
    )


def _key(name: str) -> Callable[[Event], Word]:
    return lambda event: event.ids.get(name)


def name_of(state: State, kind: str, key: str) -> str | None:
    """What an object that an event is about is called; None when it is no more."""
    if kind == "user":
        found = state.person(key)
        return f"{found.login}-authz" if found else None
    tables: dict[str, Mapping[str, Any]] = {
        "vm": state.vms,
        "host": state.hosts,
        "template": state.templates,
        "storage_domain": state.storage_domains,
        "data_center": state.data_centers,
        "cluster": state.clusters,
    }
    item = tables.get(kind, {}).get(key)
    return str(item.name) if item is not None else None


def _event(call: Call) -> Event:
    event = call.context.state.events.get(read_integer(call.segments["event"]))
    if event is None:
        raise NotFound(call.path)
    return event


def _severity(text: str) -> Severity:
    found: dict[str, Severity] = {"normal": "normal", "warning": "warning", "error": "error", "alert": "alert"}
    return found[text]


def _about(context: Context, body: Body, user: User) -> dict[str, str]:
    ids = {"user": body.ref("user") or user.id}
    for name in ("vm", "host", "storage_domain", "template", "cluster", "data_center"):
        key = body.ref(name)
        if key:
            _check_known(context, name, key)
            ids[name] = key
    return ids


def _check_known(context: Context, name: str, key: str) -> None:
    if not context.state.has(name, key):
        raise invalid(f"Cannot add External Event. The {name.replace('_', ' ')} {key} does not exist.")


def _set_external_status(context: Context, body: Body) -> None:
    """An event about a host may carry what an external system thinks of it."""
    host, status = body.child("host"), body.text("host", "external_status")
    if host is None or status is None:
        return
    if status not in _EXTERNAL_STATUSES:
        raise malformed(f"The value '{status}' isn't a valid external status.")
    context.state.host(host.id or "").external_status = status
