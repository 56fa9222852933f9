# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the engine: its restart, logins that end, acts it refuses, calls that fail or hang."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ovirtlab.engine.hooks import CallRule, Refusal, Remove
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.faults.recovery import end_orphans, merge_again

Method = Annotated[str, "GET, POST, PUT, DELETE or * for any."]
Path = Annotated[str, "Path below the API; `*` is one segment, at the end any rest: `vms/*/backups`."]
First = Annotated[int, "The n-th call from now on is the first one; 1 is the next."]
Count = Annotated[int, "How many calls from that one on; 0 is all."]


@dataclass(frozen=True, kw_only=True)
class EngineRestart(Fault):
    """The engine restarts: logins end, backups are marked failed, transfers and acts on disks are taken up again."""

    name = "engine-restart"
    mended = "What backups that were marked failed still held is given back: locked disks, QEMU's job, scratch disks."
    lasting = "logins have ended; clients log in again"

    async def do(self, lab: Lab) -> Undo | None:
        await lab.engine.restart()
        if not any(backup.abandoned for backup in lab.engine.state.backups.values()):
            return None

        async def undo() -> str:
            for vm in list(lab.engine.state.vms.values()):
                await end_orphans(lab, vm)
            return ""

        return undo


@dataclass(frozen=True, kw_only=True)
class TokensExpire(Fault):
    """All tokens end at once; clients must log in again."""

    name = "tokens-expire"
    lasting = EngineRestart.lasting

    async def do(self, lab: Lab) -> None:
        lab.engine.sessions.end_all()


@dataclass(frozen=True, kw_only=True)
class ActRefused(Fault):
    """An act on the hosts fails, such as the merge of a removed snapshot, which leaves illegal images of a running VM.

    With a `count` it works again after that many, so that a client's next try succeeds.
    """

    name = "act-refused"
    mended = "The act works again, and snapshots that could not be merged are merged."
    act: Annotated[str, "What is refused; the engine asks for `merge`."]
    vm: Annotated[str, "Name or id of the only VM it is refused for; empty for all."] = ""
    count: Annotated[int, "How often it fails; 0 is always."] = 0

    async def do(self, lab: Lab) -> Undo:
        if self.act != "merge":
            raise FaultError(f"the engine asks for no {self.act!r} that could be refused; choose merge")
        about = lab.vm(self.vm).id if self.vm else ""
        text = f"the {self.act} was refused by a fault on demand"
        refusal = Refusal(act=self.act, text=text, about=about, count=self.count)
        remove = lab.engine.context.faults.refuse(refusal)

        async def undo() -> str:
            remove()
            return await merge_again(lab, about)

        return undo


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
    async def undo() -> str:
        remove()
        return ""

    return undo


FAULTS: tuple[type[Fault], ...] = (EngineRestart, TokensExpire, ActRefused, CallFail, CallHang)
