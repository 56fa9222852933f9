# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes of the API, the call a handler gets, and the answers it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from ovirtlab.engine.access import may, require
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.faults import BadRequest, NotFound
from ovirtlab.engine.rest.bodies import Body, boolean_parameter, read_guid, read_integer
from ovirtlab.engine.rest.documents import Collection, Entity, Value


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, authenticated and parsed. `filtered` means the user-level view: only what the user may see."""

    context: Context
    user: User
    method: str
    path: str  # below the API, without a leading slash: `vms/<id>/backups`
    segments: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)
    correlation_id: str = ""
    filtered: bool = False
    expects_created: bool = False
    runs_async: bool = False  # by the action's own `async`
    does_not_wait: bool = False  # by header or parameter

    def id(self, name: str) -> str:
        """A segment of the path that is a UUID; a malformed one is 404, where in a value it is 400."""
        try:
            return read_guid(self.segments[name])
        except BadRequest:
            raise NotFound(self.path) from None

    def text(self, name: str) -> str | None:
        """A query or matrix parameter."""
        return self.parameters.get(name)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean parameter; one that is no boolean is ignored, as the engine does."""
        value = boolean_parameter(self.parameters, name)
        return default if value is None else value

    def integer(self, name: str) -> int | None:
        """A whole number; one that is none is ignored."""
        try:
            return read_integer(self.parameters[name])
        except (KeyError, BadRequest):
            return None

    def may(self, permit: str, on: tuple[str, str]) -> bool:
        """Whether the user has a permit on an object: `("vm", id)`, `("disk", id)`, `("storage_domain", id)`..."""
        return may(self.context.state, self.user, permit=permit, on=on)

    def require(self, permit: str, on: tuple[str, str]) -> None:
        """Raise `Forbidden` unless the user has the permit."""
        require(self.context.state, self.user, permit=permit, on=on)


@dataclass(frozen=True)
class Created:
    """The answer to an add: 201 without `work`, 202 while `work` runs; `show` renders the entity at that moment."""

    show: Callable[[], Entity]
    work: asyncio.Task[Any] | None = None


@dataclass(frozen=True)
class Done:
    """The answer to an action or a removal; `work` is awaited unless the client asked for an asynchronous action."""

    fields: Mapping[str, Value] = field(default_factory=dict)
    work: asyncio.Task[Any] | None = None


Answer: TypeAlias = Entity | Collection | Created | Done
Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    method: str
    pattern: tuple[str, ...]
    handler: Handler
    is_action: bool = False

    @cached_property
    def names(self) -> list[str]:
        """What the variable segments are called."""
        return [part[1:-1] for part in self.pattern if part.startswith("{")]


class Routes:
    """Handlers of one kind of object, collected by decorators; patterns are paths below the API, `{x}` a segment."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def get(self, pattern: str) -> Callable[[Handler], Handler]:
        return self._add("GET", pattern)

    def post(self, pattern: str) -> Callable[[Handler], Handler]:
        return self._add("POST", pattern)

    def put(self, pattern: str) -> Callable[[Handler], Handler]:
        return self._add("PUT", pattern)

    def delete(self, pattern: str) -> Callable[[Handler], Handler]:
        return self._add("DELETE", pattern)

    def action(self, pattern: str) -> Callable[[Handler], Handler]:
        """A POST whose last segment is the verb; answered with `<action>`, also when it is refused."""
        return self._add("POST", pattern, is_action=True)

    def _add(self, method: str, pattern: str, *, is_action: bool = False) -> Callable[[Handler], Handler]:
        def keep(handler: Handler) -> Handler:
            self.all.append(Route(method, tuple(pattern.split("/")), handler, is_action))
            return handler

        return keep


class Router:
    """All routes as a tree of segments, so that a lookup costs the length of the path."""

    def __init__(self, *groups: Routes) -> None:
        self._root: _Node = _Node()
        for group in groups:
            for route in group.all:
                self._root.add(route)

    def find(self, method: str, path: str) -> Match | None:
        """The route of a request and its segments; None when the path is unknown, without a route for 405."""
        node, segments = self._root.walk(path.split("/"))
        if node is None or not node.routes:
            return None
        route = node.routes.get(method)
        if route is None:
            return Match(None, {})
        return Match(route, dict(zip(route.names, segments, strict=True)))

    def methods(self, path: str) -> list[str]:
        """What may be done with a path; empty when it is unknown."""
        node, _ = self._root.walk(path.split("/"))
        found = set(node.routes) if node is not None else set()
        return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set())) if found else []

    def actions(self, path: str) -> list[str]:
        """The actions of the object at a path."""
        node, _ = self._root.walk(path.split("/"))
        return node.actions if node is not None else []


@dataclass(frozen=True)
class Match:
    route: Route | None
    segments: Mapping[str, str]


class _Node:
    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.routes: dict[str, Route] = {}

    def add(self, route: Route) -> None:
        node = self
        for part in route.pattern:
            if part.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.fixed.setdefault(part, _Node())
        node.routes[route.method] = route

    @cached_property
    def actions(self) -> list[str]:
        """Asked for when all routes are there."""
        return sorted(name for name, node in self.fixed.items() if any(one.is_action for one in node.routes.values()))

    def walk(self, parts: list[str]) -> tuple[_Node | None, list[str]]:
        node: _Node | None = self
        taken: list[str] = []
        for part in parts:
            assert node is not None
            if part in node.fixed:
                node = node.fixed[part]
            elif node.variable is not None:
                taken.append(part)
                node = node.variable
            else:
                return None, []
        return node, taken
