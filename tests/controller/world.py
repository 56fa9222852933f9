# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller over the in-memory Manager and movers, a real repository in a folder, and a real durable engine."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.config import WatchedTarget
from overkeep.controller.background.catalogue import Catalogue
from overkeep.controller.background.dispatcher import QUEUES, Dispatcher
from overkeep.controller.background.janitor import Janitor
from overkeep.controller.background.thawer import Thawer
from overkeep.controller.durable import Durable, Stopping
from overkeep.controller.ports import Patience, Ports
from overkeep.controller.records import Job, JobKind, JobState
from overkeep.controller.service import Controller, make_durable
from overkeep.controller.store import Store
from overkeep.controller.targets.configured import PlacedPoint, Targets
from overkeep.controller.workflows.restore_plan import decide_targets
from overkeep.errors import NotFound
from overkeep.model.inventory import Disk, DiskFormat, Nic, Vm, VmStatus
from overkeep.model.points import RestorePoint
from overkeep.model.restore import RestoreRequest
from overkeep.mover.api import Mover
from overkeep.mover.orders import CopyOrder, CopyResult, Image, MergeOrder, MergeResult, VerifyOrder, VerifyResult
from overkeep.repository.merging import MergeJournal
from overkeep.repository.repository import Repository
from overkeep.testing.engine import MemoryEngine
from overkeep.testing.mover import SIZE, MemoryMover, sound

HASTE = Patience(poll=0.02, ready=5.0, retry=1.0, release=3.0, mover=1.0, lease=0.2, attempts=3, ticket=1.0)


def disk(name: str, *, raw: bool = False, bootable: bool = False) -> Disk:
    return Disk(
        id=f"{name}-disk",
        name=name,
        size=SIZE,
        format=DiskFormat.RAW if raw else DiskFormat.COW,
        tracks_changes=not raw,
        bootable=bootable,
        storage_domain_id="domain-1",
        storage_domain="data1",
    )


def vm(name: str, *disks: Disk) -> Vm:
    return Vm(
        id=f"{name}-vm",
        name=name,
        status=VmStatus.UP,
        cluster_id="cluster-1",
        cluster="Default",
        host_id="host-1",
        disks=disks,
        nics=(Nic(id=f"{name}-nic", name="nic1", mac="56:6f:00:00:00:99", vnic_profile_id="profile-1"),),
    )


class Mortal:
    """A port whose caller dies at the n-th call from now, before it or after it had its effect."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self._lock = threading.Lock()
        self.calls = 0
        self.die_at = 0
        self.die_in = ""
        self.after = False
        self.died = threading.Event()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.calls += 1
                fatal = self.calls == self.die_at or name == self.die_in
                self.die_in = "" if fatal else self.die_in
            if fatal and not self.after:
                self._die()
            result = found(*args, **kwargs)
            if fatal:
                self._die()
            return result

        return call

    def arm(self, at: int, *, after: bool) -> None:
        """Die at the `at`-th call from now."""
        self.calls, self.die_at, self.after = 0, at, after
        self.died.clear()

    def arm_at(self, method: str, *, after: bool) -> None:
        """Die at the next call of a method."""
        self.die_in, self.after = method, after
        self.died.clear()

    def _die(self) -> None:
        self.died.set()
        raise Stopping


class OneMover:
    """The directory of a site with movers in memory."""

    def __init__(self, movers: dict[str, Mover]) -> None:
        self._movers = movers

    def at(self, host_id: str) -> Mover:
        if host_id not in self._movers:
            raise NotFound(kind="host", name=host_id, how="overkeep movers")
        return self._movers[host_id]


class World:
    """Everything a job touches. `restart` is what `kill -9` and a new start leave and find.

    The job engine looks for work every `poll` seconds.
    """

    def __init__(self, folder: Path, *, patience: Patience = HASTE, poll: float = 0.05) -> None:
        self.folder = folder
        self.patience = patience
        self.poll = poll
        self.memory = MemoryEngine()
        self.engine = Mortal(self.memory)
        (folder / "target").mkdir(parents=True)
        self.repository = Repository(folder / "target").create()
        self.target_settings = (WatchedTarget(name="nfs1", kind="path", mountpoint=folder / "target"),)
        self.mover = MemoryMover(
            "host1",
            targets=frozenset({"nfs1", "nfs2"}),
            outcome=self.write_image,
            bookkeeping=self.merge_images,
            clock=lambda: 0.0,  # a busy machine may hold a controller up for longer than a lease of tests
        )
        self.mortal_mover = Mortal(self.mover)
        self.store = Store(f"sqlite:///{folder / 'controller.sqlite'}")
        self.running = False
        self.rotten: set[str] = set()  # names of images that a check finds damaged

    def root(self, target: str) -> Path:
        """The folder of a target."""
        return next(one.mountpoint for one in self.target_settings if one.name == target)

    def add_target(self, name: str) -> Path:
        """Add a target, a folder of its own, from the next `start` on."""
        root = self.folder / name
        root.mkdir()
        self.target_settings = (*self.target_settings, WatchedTarget(name=name, kind="path", mountpoint=root))
        return root

    def write_image(self, order: CopyOrder) -> CopyResult:
        """What a mover leaves on the target."""
        if isinstance(order.sink, Image):
            path = self.root(order.sink.target) / order.sink.folder / order.sink.name
            backing = ["-b", order.sink.backing, "-F", "qcow2"] if order.sink.backing else []
            options = ["-f", "qcow2", "-o", "compat=1.1", *backing]
            subprocess.run(["qemu-img", "create", "-q", *options, path, str(SIZE)], check=True, timeout=90)
        covered = 1 << 20 if order.dirty else SIZE
        return CopyResult(virtual_size=SIZE, covered=covered, moved=1 << 20, stored=1 << 18, seconds=0.1)

    def merge_images(self, order: MergeOrder | VerifyOrder) -> MergeResult | VerifyResult:
        """What a mover does in the folder of a disk, with the same hands."""
        if isinstance(order, VerifyOrder):
            found = (sound(name, order.share) for name in order.images)
            bad = {"damaged": 3, "named": (1, 2, 3)}
            told = [one.model_copy(update=bad) if one.image in self.rotten else one for one in found]
            return VerifyResult(images=tuple(told), seconds=0.1)
        folder = self.root(order.target) / order.folder
        done = merge_away(folder, order.remove, journal=MergeJournal(folder), watch=Watch())
        return MergeResult(moved=done.moved, freed=done.freed, removed=done.removed, seconds=done.seconds)

    def start(self) -> None:
        self.durable = Durable(self.folder, queues=QUEUES, poll=self.poll)
        self.ports = Ports(
            engine=self.engine,
            targets=Targets(self.target_settings, self.store, patience=5),
            movers=OneMover({"host-1": self.mortal_mover}),
            store=self.store,
            patience=self.patience,
            stopping=self.durable.stopping,
        )
        self.thawer = Thawer(self.ports, alone=True)
        self.thawer.start()
        make_durable(self.ports, self.durable)
        self.durable.start()
        self.controller = Controller(self.ports)
        self.janitor = Janitor(self.controller, self.durable)
        self.catalogue = Catalogue(self.ports)
        self.catalogue.round()
        self.dispatcher = Dispatcher(self.ports, self.durable)
        self.dispatcher.start()
        self.running = True

    def stop(self) -> None:
        if self.running:
            self.dispatcher.stop()
            self.thawer.stop()
            self.durable.stop(10)
            self.running = False

    def restart(self) -> None:
        self.stop()
        self.engine.die_at = self.mortal_mover.die_at = 0
        self.engine.die_in = ""
        self.start()
        self.janitor.round()

    def lose_data_base(self) -> None:
        """Begin anew with an empty one; the controller must be stopped."""
        self.store.close()
        for path in self.folder.glob("*.sqlite*"):
            path.unlink()
        self.store = Store(f"sqlite:///{self.folder / 'controller.sqlite'}")

    def __enter__(self) -> World:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.store.close()

    def add(self, *vms: Vm, workload: str = "demo") -> None:
        for each in vms:
            self.memory.add_vm(each)
        self.controller.create_workload(workload, [each.id for each in vms])

    def placed(self, point: RestorePoint, target: str = "nfs1") -> PlacedPoint:
        """A point and where it lies."""
        return PlacedPoint(point=point, target=self.ports.targets.get(target))

    def start_backup(self, *, full: bool = False, workload: str = "demo") -> Job:
        return self.controller.start_backup(self.controller.workload(workload), caller="admin", full=full)

    def write_backup_job(self, *, workload: str = "demo") -> Job:
        """What a controller leaves that dies between writing a job down and giving it to the job engine."""
        found = self.controller.workload(workload)
        job = Job(
            id=str(uuid.uuid4()),
            kind=JobKind.BACKUP,
            state=JobState.QUEUED,
            workload_id=found.id,
            subject=found.name,
            caller="admin",
            request={"full": False},
            created="2026-01-01T00:00:00+00:00",
        )
        self.store.jobs.create(job, found.members, exclusive=True)
        return job

    def back_up(self, *, full: bool = False) -> Job:
        return self.finish(self.start_backup(full=full))

    def restore(self, point_id: str, name: str, **options: Any) -> Job:
        return self.finish(self.start_restore(point_id, name, **options))

    def start_restore(self, point_id: str, name: str, **options: Any) -> Job:
        point = self.controller.points.find(point_id)
        request = RestoreRequest(point_id=point_id, name=name, **options)
        # asked for by the API, not by the job: no call of this is one at which the job's controller dies
        targets = decide_targets(dataclasses.replace(self.ports, engine=self.memory), point, request)
        return self.controller.start_restore(point, request, targets=targets, caller="admin")

    def finish(self, job: Job, *, seconds: float = 90) -> Job:
        return self.until(lambda: self._if_over(job.id), seconds=seconds)

    def _if_over(self, job_id: str) -> Job | None:
        job = self.store.jobs.get(job_id)
        return job if job.state.over else None

    def until(self, probe: Any, *, seconds: float = 90) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := probe()):
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)
        return found

    def phase(self, job: Job, phase: str) -> bool:
        return any(v.phase == phase for v in self.store.jobs.get(job.id).vms)

    def texts(self, job: Job) -> str:
        return "\n".join(event.text for event in self.store.events.of_job(job.id))

    def left_on_target(self) -> list[Path]:
        """Files of points in the making, also of those that were made."""
        found = self.repository.root.rglob("*")
        return [path for path in found if path.name == "draft.json" or path.suffix in {".tmp", ".partial"}]

    def assert_nothing_open(self) -> None:
        """No lock, no transfer, no half point, no order still running."""
        assert (self.memory.open_backups(), self.memory.open_transfers()) == ((), ())
        assert self.repository.drafts() == ()
        assert self.left_on_target() == []
        assert self.store.held.orphans() == ()
        assert self.mover.running() == ()
        assert self.memory.floating_disks() == ()
        assert self.memory.snapshots_left() == ()
        assert self.memory.frozen == set()

    def assert_checkpoints_sound(self) -> None:
        """Each VM has at most one checkpoint, that of its newest point."""
        for vm_id, checkpoints in self.memory.checkpoints_made().items():
            newest = self.repository.points(vm_id=vm_id)[-1:]
            assert checkpoints == tuple(point.checkpoint_id for point in newest), vm_id


def succeeded(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED


def with_patience(**values: Any) -> Patience:
    return dataclasses.replace(HASTE, **values)
