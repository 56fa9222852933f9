# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull-mode backup of a running VM, in the QMP commands libvirt sends for backup-begin and the end of its job.

Bitmaps of earlier checkpoints stay enabled, so that each covers all writes since its checkpoint; the one an increment
is read by is a merged copy on the scratch node, named `backup-<target>`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ovirtlab.host.checkpoints import Bitmaps, bitmaps_of_nodes, inconsistent, usable
from ovirtlab.machine.agent import GuestAgent
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.process import run
from ovirtlab.machine.qemu import Machine

log = logging.getLogger(__name__)

POLL = 0.005
JOB_END_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class DiskPlan:
    """One disk of a backup, in names of the block layer; `size` is virtual, in bytes.

    `nodes` are the disk's volumes, the active one first: a bitmap may span several of them.
    """

    target: str
    nodes: tuple[str, ...]
    scratch: Path
    size: int
    from_checkpoint: str | None
    to_checkpoint: str | None

    @property
    def node(self) -> str:
        """Node of the scratch image."""
        return f"scratch-{self.target}"

    @property
    def job(self) -> str:
        return f"backup-{self.target}"

    @property
    def bitmap(self) -> str:
        """Name of the exported bitmap, libvirt's choice."""
        return f"backup-{self.target}"


class LiveBackup:
    """A started backup, with all that ends it again."""

    def __init__(self, backup_id: str, machine: Machine, plans: tuple[DiskPlan, ...], socket: Path) -> None:
        self.id = backup_id
        self.machine = machine
        self.socket = socket
        self._plans = plans
        self._spans: dict[str, tuple[str, ...]] = {}
        self._undo = AsyncExitStack()

    @property
    def urls(self) -> Mapping[str, str]:
        """By target, where the disk is read."""
        return {plan.target: f"nbd:unix:{self.socket}:exportname={plan.target}" for plan in self._plans}

    @property
    def checkpoints(self) -> frozenset[str]:
        """Ids of the checkpoints the backup has made."""
        return frozenset(plan.to_checkpoint for plan in self._plans if plan.to_checkpoint)

    async def start(self, *, require_consistency: bool) -> None:
        """Begin; after an error nothing is left, neither nodes nor bitmaps nor files."""
        await self._check_bitmaps()
        async with AsyncExitStack() as undo:
            for plan in self._plans:
                undo.callback(plan.scratch.unlink, missing_ok=True)
                await run(["qemu-img", "create", "-q", "-f", "qcow2", plan.scratch, str(plan.size)])
            async with frozen(self.machine, required=require_consistency):
                await self._begin(undo)
            self._undo = undo.pop_all()

    async def stop(self) -> None:
        """End the job, the exports and the server, and remove the scratch images.

        `HostError` when the VM is gone: the files are removed all the same.
        """
        if self.machine.state == "down":
            self.discard()
            raise HostError(f"VM {self.machine.spec.name} is not running any more; its backup {self.id} is lost")
        await self._undo.aclose()

    def discard(self) -> None:
        """Remove what a VM that has ended left behind: QEMU does not remove its socket."""
        self._undo.pop_all()
        self.socket.unlink(missing_ok=True)
        for plan in self._plans:
            plan.scratch.unlink(missing_ok=True)

    async def _check_bitmaps(self) -> None:
        present = await bitmaps_of_nodes(self.machine)
        for plan in self._plans:
            if plan.from_checkpoint:
                spans = carriers(plan, present)
                if not spans or not all(usable(present[node][plan.from_checkpoint]) for node in spans):
                    raise inconsistent(plan.from_checkpoint)
                self._spans[plan.target] = spans

    async def _begin(self, undo: AsyncExitStack) -> None:
        for plan in self._plans:
            await self._add_scratch(plan, undo)
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        address = {"type": "unix", "data": {"path": str(self.socket)}}
        await self.machine.execute("nbd-server-start", {"addr": address})
        undo.push_async_callback(self._stop_server)
        await self.machine.execute("transaction", {"actions": transaction(self._plans, self._spans)})
        undo.push_async_callback(self._end_jobs)
        async with AsyncExitStack() as unmade:
            unmade.push_async_callback(self._remove_checkpoint_bitmaps)
            for plan in self._plans:
                await self.machine.execute("block-export-add", export(plan))
            unmade.pop_all()

    async def _add_scratch(self, plan: DiskPlan, undo: AsyncExitStack) -> None:
        storage = {"driver": "file", "filename": str(plan.scratch), "node-name": f"{plan.node}-storage"}
        await self.machine.execute("blockdev-add", {**storage, "auto-read-only": True, "discard": "unmap"})
        undo.push_async_callback(self.machine.execute, "blockdev-del", {"node-name": storage["node-name"]})
        image = {"driver": "qcow2", "node-name": plan.node, "file": storage["node-name"], "backing": plan.nodes[0]}
        await self.machine.execute("blockdev-add", {**image, "read-only": False})
        undo.push_async_callback(self.machine.execute, "blockdev-del", {"node-name": plan.node})

    async def _stop_server(self) -> None:
        """Stop the server, which drops its exports and hangs up on readers."""
        await self.machine.execute("nbd-server-stop")
        self.socket.unlink(missing_ok=True)

    async def _end_jobs(self) -> None:
        ours = {plan.job for plan in self._plans}
        for job in ours & set(await self._jobs()):
            # A job that has failed by itself is concluded already and takes no cancel.
            if (await self._jobs())[job] != "concluded":
                await self.machine.execute("block-job-cancel", {"device": job, "force": True})
        async with asyncio.timeout(JOB_END_TIMEOUT):
            while any(status != "concluded" for job, status in (await self._jobs()).items() if job in ours):
                await asyncio.sleep(POLL)
        for job in ours & set(await self._jobs()):
            await self.machine.execute("job-dismiss", {"id": job})

    async def _jobs(self) -> Mapping[str, str]:
        return {job["id"]: job["status"] for job in await self.machine.execute("query-jobs")}

    async def _remove_checkpoint_bitmaps(self) -> None:
        for plan in self._plans:
            if plan.to_checkpoint:
                bitmap = {"node": plan.nodes[0], "name": plan.to_checkpoint}
                await self.machine.execute("block-dirty-bitmap-remove", bitmap)


def carriers(plan: DiskPlan, present: Mapping[str, Bitmaps]) -> tuple[str, ...]:
    """The nodes that bear the bitmap an increment is read by, from the active volume down without a hole."""
    return tuple(takewhile(lambda node: plan.from_checkpoint in present.get(node, {}), plan.nodes))


def transaction(plans: tuple[DiskPlan, ...], spans: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Actions that start all disks of a backup at one moment: the new bitmaps of all, then disk by disk, as libvirt."""
    new = [
        _action("block-dirty-bitmap-add", node=plan.nodes[0], name=plan.to_checkpoint, persistent=True, disabled=False)
        for plan in plans
        if plan.to_checkpoint
    ]
    return new + [action for plan in plans for action in (*_since_checkpoint(plan, spans), _job(plan))]


def _since_checkpoint(plan: DiskPlan, spans: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Merge what was written since the checkpoint, in all volumes, into a bitmap of the scratch node."""
    if not plan.from_checkpoint:
        return []
    merged = {"persistent": False, "disabled": True, "granularity": 65536}
    source = [{"node": node, "name": plan.from_checkpoint} for node in spans[plan.target]]
    return [
        _action("block-dirty-bitmap-add", node=plan.node, name=plan.bitmap, **merged),
        _action("block-dirty-bitmap-merge", node=plan.node, target=plan.bitmap, bitmaps=source),
    ]


def _job(plan: DiskPlan) -> dict[str, Any]:
    life = {"job-id": plan.job, "auto-finalize": True, "auto-dismiss": False}
    return _action("blockdev-backup", device=plan.nodes[0], target=plan.node, sync="none", **life)


def _action(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def export(plan: DiskPlan) -> dict[str, Any]:
    """Arguments of block-export-add; libvirt offers no allocation depth and sets no limit on connections."""
    named = {"type": "nbd", "id": f"export-{plan.target}", "node-name": plan.node, "name": plan.target}
    bitmap = {"bitmaps": [plan.bitmap]} if plan.from_checkpoint else {}
    return {**named, "writable": False, **bitmap}


@asynccontextmanager
async def frozen(machine: Machine, *, required: bool) -> AsyncIterator[None]:
    """Hold the guest's file systems still; thaw always. A guest that cannot freeze is an error only if `required`."""
    async with AsyncExitStack() as stack:
        try:
            agent = await stack.enter_async_context(machine.agent())
            stack.push_async_callback(_thaw, machine, agent)
            await agent.execute("guest-fsfreeze-freeze")
        except HostError as error:
            if required:
                raise HostError(f"VM {machine.spec.name} could not be frozen: {error}") from error
            log.info("VM %s is backed up without a freeze: %s", machine.spec.name, error)
        yield


async def _thaw(machine: Machine, agent: GuestAgent) -> None:
    try:
        await agent.execute("guest-fsfreeze-thaw")
    except HostError as error:
        log.warning("VM %s could not be thawed: %s", machine.spec.name, error)
