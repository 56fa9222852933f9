# SPDX-License-Identifier: GPL-3.0-or-later
"""Where faults on demand get a say in the engine: acts that are refused, and REST calls that fail or hang."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from ovirtlab.engine.faults import Fault, NotFound, Unauthorized
from ovirtlab.host.api import HostError

Remove = Callable[[], None]


class Demanded(Fault):
    """A refusal that was asked for, with any status."""

    def __init__(self, status: int) -> None:
        super().__init__("This call was made to fail by a fault on demand.")
        self.status = status


@dataclass(kw_only=True)
class Refusal:
    """An act that shall fail; `about` is the id of one object, empty for all; `count` how often (0: always)."""

    act: str
    text: str
    about: str = ""
    count: int = 0
    seen: int = 0

    def takes(self, act: str, about: str) -> bool:
        """Count an act, and tell whether it is one of those."""
        if self.act != act or self.about not in ("", about):
            return False
        self.seen += 1
        return self.count == 0 or self.seen <= self.count


@dataclass(kw_only=True)
class CallRule:
    """What happens to some of the calls of a kind.

    `pattern` is a path below the API in which `*` stands for one segment, and at its end for any rest. Calls are
    counted from the moment the rule is made: the `first` one and those after it, `count` in all (0: without end), wait
    `seconds` of real time, and then fail with `status`, or go on where that is 0.
    """

    method: str
    pattern: str
    first: int = 1
    count: int = 1
    status: int = 0
    seconds: float = 0.0
    seen: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, method: str, path: str) -> bool:
        """Whether a call is of the kind."""
        if self.method not in ("*", method):
            return False
        wanted, parts = self.pattern.strip("/").split("/"), path.strip("/").split("/")
        if wanted[-1] == "*" and len(parts) > len(wanted):
            parts = parts[: len(wanted)]
        return len(wanted) == len(parts) and all(one in ("*", two) for one, two in zip(wanted, parts, strict=True))

    def take(self) -> bool:
        """Count one call; tell whether it is one of those."""
        self.seen += 1
        return self.seen >= self.first and (self.count == 0 or self.seen < self.first + self.count)


class Hooks:
    """The faults that wait inside the engine. Without any, all goes as ever."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._refusals: dict[int, Refusal] = {}
        self._rules: dict[int, CallRule] = {}

    def refuse(self, refusal: Refusal) -> Remove:
        """Make an act fail until the returned function is called."""
        number = next(self._numbers)
        self._refusals[number] = refusal

        def remove() -> None:
            self._refusals.pop(number, None)

        return remove

    def check(self, act: str, about: str = "") -> None:
        """Asked by the engine before an act such as `merge` on the object `about`; raise `HostError` to refuse it."""
        for refusal in self._refusals.values():
            if refusal.takes(act, about):
                raise HostError(refusal.text)

    def add_rule(self, rule: CallRule) -> Remove:
        """Disturb calls until the returned function is called, which also lets those go that wait."""
        number = next(self._numbers)
        self._rules[number] = rule

        def remove() -> None:
            self._rules.pop(number, None)
            rule.ended.set()

        return remove

    async def before_call(self, method: str, path: str) -> None:
        """Asked before each REST call; raise the fault it shall be answered with."""
        for rule in list(self._rules.values()):
            if rule.matches(method, path) and rule.take():
                await _wait(rule)
                if rule.status:
                    raise _refused(rule.status)


async def _wait(rule: CallRule) -> None:
    if rule.seconds:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(rule.ended.wait(), rule.seconds)


def _refused(status: int) -> Fault:
    if status == Unauthorized.status:
        return Unauthorized("A fault on demand.")
    return NotFound() if status == NotFound.status else Demanded(status)
