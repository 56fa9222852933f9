# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers that are killed at random instants of mixed work, started anew, and looked at when all is quiet."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overkeep.controller.background.peers import DECLARED_DEAD
from overkeep.controller.events import Kind as Told
from overkeep.controller.records import JobKind
from overkeep.controller.workflows.restore_plan import decide_targets
from overkeep.engine.api import BackupRequest, TransferRequest
from overkeep.errors import OverkeepError
from overkeep.model.restore import RestoreRequest
from overkeep.model.retention import Retention
from tests.controller import ledger, peer
from tests.controller.child import Child
from tests.controller.site import Site
from tests.controller.test_terms import give
from tests.controller.world import disk, vm

WORKLOADS = ("demo", "other")
SETTLED = 240.0  # seconds for everything to end once nobody is killed any more


class Torture:
    """`kills` deaths of controllers at a site; on a shared data base there are two of them, and some only sleep."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.shared = site.url.startswith("postgresql")
        self.rng = random.Random(seed)
        self.deaths = self.sleeps = self.restores = self.begun = 0
        self.children: list[Child] = []
        self._logs: list[Path] = []  # of all controllers since everything was well
        self._acts: tuple[Callable[[], object], ...] = (
            self._back_up,
            self._back_up,
            self._back_up,
            self._remove,
            self._restore,
            self._cancel,
        )

    def prepare(self) -> None:
        """Two workloads, one with a retention."""
        self.site.add(*(vm(name, disk(f"{name}-root"), disk(f"{name}-data", raw=True)) for name in ("a", "b", "c")))
        self.site.add(vm("d", disk("d-root", bootable=True), disk("d-log")), workload="other")
        give(self.site, retention=Retention(last=3))

    def run(self, kills: int, *, settle_every: int = 10) -> None:
        """Kill so often; between, and at the end, let everything end and look at it."""
        while self.deaths + self.sleeps < kills:
            self.man()
            for _ in range(self.rng.randrange(1, 4)):
                self.act()
            self.wound()
            if (self.deaths + self.sleeps) % settle_every == 0:
                self.settle()
        self.settle()

    def man(self) -> None:
        """Let there be as many controllers as there should; one that ends by itself was declared dead by another."""
        for child in [child for child in self.children if not child.alive]:
            code = child.status
            assert code in (-signal.SIGKILL, DECLARED_DEAD), (code, child.log.read_text()[-4000:])
            self.children.remove(child)
        while len(self.children) < (2 if self.shared else 1):
            self.begun += 1
            self.children.append(Child(self.site.folder, self.site.url, self._log()))
            self._logs.append(self.children[-1].log)

    def _log(self) -> Path:
        return self.site.folder / f"controller-{self.begun}.log"

    def act(self) -> None:
        """Ask for something that may be refused: what is done at the time is a matter of chance."""
        with suppress(OverkeepError):
            self.rng.choice(self._acts)()

    def wound(self) -> None:
        """Kill a controller at some instant, seldom before it works; or stop it past its lease and wake it."""
        victim = self.rng.choice(self.children)
        if self.rng.random() < 0.85:
            victim.await_ready()
            time.sleep(self.rng.uniform(0, 1.5))  # the instant is what is tried out
        else:
            time.sleep(self.rng.uniform(0, 0.8))
        if self.shared and self.rng.random() < 0.25:
            self.sleeps += 1
            victim.signal(signal.SIGSTOP)
            try:
                time.sleep(peer.TTL * self.rng.uniform(1.2, 2.5))
            finally:
                victim.signal(signal.SIGCONT)
        else:
            self.deaths += 1
            victim.end()

    def settle(self) -> None:
        """Let everything end, plant leftovers, see them found, and let the next backups make good what was put off."""
        self.man()
        self.until_quiet()
        self.plant()
        for name in WORKLOADS:
            self.site.controller.start_backup(self.site.controller.workload(name), caller="admin", full=False)
        self.until_quiet()
        ledger.assert_all_well(self.site)
        self._logs = [child.log for child in self.children]

    def story(self) -> str:
        """How far it came, and what the controllers logged since everything was well."""
        logs = "\n".join(f"---- {log.name}\n{log.read_text()}" for log in self._logs)
        return f"{self.deaths} deaths, {self.sleeps} sleeps, {self.restores} restores\n{logs}"

    def until_quiet(self) -> None:
        deadline = time.monotonic() + SETTLED
        while not ledger.quiet(self.site):
            self.man()
            assert time.monotonic() < deadline, self.why_not_quiet()
            time.sleep(0.1)

    def why_not_quiet(self) -> str:
        site = self.site
        logs = "\n".join(child.log.read_text()[-3000:] for child in self.children)
        open_now = (site.memory.open_backups(), site.memory.open_transfers(), site.mover.running())
        return f"{site.store.jobs.all(live=True)}\n{open_now}\n{site.store.held.orphans()}\n{logs}"

    def plant(self) -> None:
        """Leave what a controller leaves that wrote to the Manager or the target after its peers had cleaned up."""
        site, memory = self.site, self.site.memory
        backups = [job for job in ledger.jobs(site) if job.kind is JobKind.BACKUP]
        if not backups:
            return
        job = self.rng.choice(backups)
        ref = str(uuid.uuid4())
        asked = BackupRequest(
            id=ref, vm_id="b-vm", disk_ids=("b-root-disk",), from_checkpoint=None, description=site.ports.mark(job.id)
        )
        memory.start_backup(asked)
        site.until(lambda: memory.backup("b-vm", ref).phase == "ready" or not self._is_open(ref))
        if self._is_open(ref):
            memory.start_transfer(TransferRequest(disk_id="b-root-disk", upload=False, backup_id=ref))
        draft = site.repository.begin("w", "v", point_id=f"20200101T000000Z-{ref[:8]}", job_id=job.id)
        path = site.repository.root / "workloads/w/vms/v/points" / draft.point_id / "draft.json"
        path.write_text(path.read_text().replace(str(draft.created.year), "2020", 1))
        site.until(lambda: not self._is_open(ref) and memory.open_transfers() == (), seconds=SETTLED)
        site.until(lambda: site.repository.drafts() == (), seconds=SETTLED)
        site.until(lambda: self._told(ref, draft.point_id), seconds=SETTLED)

    def _is_open(self, ref: str) -> bool:
        return any(request.id == ref for request in self.site.memory.open_backups())

    def _told(self, ref: str, point_id: str) -> bool:
        found = [event.text for event in ledger.events(self.site, Told.LEFTOVER_FOUND)]
        drafts = [event.about.point_id for event in ledger.events(self.site, Told.DRAFT_REMOVED)]
        return any(ref in text for text in found) and point_id in drafts

    def _back_up(self) -> None:
        workload = self.site.controller.workload(self.rng.choice(WORKLOADS))
        self.site.controller.start_backup(workload, caller="admin", full=self.rng.random() < 0.25)

    def _remove(self) -> None:
        points = self.site.repository.points()
        if points:
            self.site.controller.start_removal(self.site.placed(self.rng.choice(points)), caller="admin")

    def _restore(self) -> None:
        points = self.site.repository.points()
        if points:
            self.restores += 1
            point = self.site.placed(self.rng.choice(points))
            request = RestoreRequest(point_id=point.point.id, name=f"r{self.restores}", start=self.rng.random() < 0.5)
            targets = decide_targets(dataclasses.replace(self.site.ports, engine=self.site.memory), point, request)
            self.site.controller.start_restore(point, request, targets=targets, caller="admin")

    def _cancel(self) -> None:
        live = self.site.store.jobs.all(live=True)
        if live:
            self.site.controller.cancel(self.rng.choice(live))


@contextmanager
def torture(site: Site) -> Iterator[Torture]:
    """Torture with a seed of its own, which is printed; no process is left."""
    seed = int(os.environ.get("OVERKEEP_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed: {seed} (OVERKEEP_SEED)")
    made = Torture(site, seed)
    made.prepare()
    try:
        yield made
    except BaseException:
        print(made.story())
        raise
    finally:
        for child in made.children:
            child.end()
