# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the engine: its restart, logins that end, acts it refuses, calls that fail or hang."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ovirtlab.engine.hooks import CallRule, Refusal, Remove
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo

Method = Annotated[str, "GET, POST, PUT, DELETE or * for any."]
Path = Annotated[str, "Path below the API; `*` is one segment, at the end any rest: `vms/*/backups`."]
First = Annotated[int, "The n-th call from now on is the first one; 1 is the next."]
Count = Annotated[int, "How many calls from that one on; 0 is all."]


@dataclass(frozen=True, kw_only=True)
class EngineRestart(Fault):
    """The engine restarts: logins end, live backups are marked failed, transfers are taken up again."""

    name = "engine-restart"

    async def do(self, lab: Lab) -> None:
        await lab.engine.restart()


@dataclass(frozen=True, kw_only=True)
class TokensExpire(Fault):
    """All tokens end at once; clients must log in again."""

    name = "tokens-expire"

    async def do(self, lab: Lab) -> None:
        lab.engine.sessions.end_all()


@dataclass(frozen=True, kw_only=True)
class ActRefused(Fault):
    """An act on the hosts fails, such as the live merge of a removed snapshot."""

    name = "act-refused"
    mended = "The act works again."
    act: Annotated[str, "What is refused; the engine asks for `merge`."]
    vm: Annotated[str, "Name or id of the only VM it is refused for; empty for all."] = ""

    async def do(self, lab: Lab) -> Undo:
        about = lab.vm(self.vm).id if self.vm else ""
        text = f"the {self.act} was refused by a fault on demand"
        return _later(lab.engine.context.faults.refuse(Refusal(act=self.act, text=text, about=about)))


@dataclass(frozen=True, kw_only=True)
class CallFail(Fault):
    """Calls of a kind are answered with a chosen status; the engine does nothing for them."""

    name = "call-fail"
    mended = "Calls are answered again."
    path: Path
    method: Method = "*"
    first: First = 1
    count: Count = 1
    status: Annotated[int, "Status of the answer, 400 to 599."] = 503

    async def do(self, lab: Lab) -> Undo:
        if not 400 <= self.status <= 599:
            raise FaultError(f"a call that fails has a status from 400 to 599, not {self.status}")
        rule = CallRule(method=self.method, pattern=self.path, first=self.first, count=self.count, status=self.status)
        return _later(lab.engine.context.faults.add_rule(rule))


@dataclass(frozen=True, kw_only=True)
class CallHang(Fault):
    """Calls of a kind wait before the engine works on them."""

    name = "call-hang"
    mended = "Calls that wait go on, later ones do not wait."
    path: Path
    seconds: Annotated[float, "How long, in real seconds."]
    method: Method = "*"
    first: First = 1
    count: Count = 1

    async def do(self, lab: Lab) -> Undo:
        rule = CallRule(method=self.method, pattern=self.path, first=self.first, count=self.count, seconds=self.seconds)
        return _later(lab.engine.context.faults.add_rule(rule))


def _later(remove: Remove) -> Undo:
    async def undo() -> None:
        remove()

    return undo


FAULTS: tuple[type[Fault], ...] = (EngineRestart, TokensExpire, ActRefused, CallFail, CallHang)
