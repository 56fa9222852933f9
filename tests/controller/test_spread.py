# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host does what any can: the least loaded one that reaches the storage, as far as is known."""

from __future__ import annotations

import dataclasses

import pytest

from overkeep.controller.movers.spread import LOOK, Spread
from overkeep.model.inventory import Host, VmStatus
from overkeep.mover.api import Health, Load, Mover
from overkeep.mover.errors import MoverUnreachable
from overkeep.testing.engine import MemoryEngine
from overkeep.testing.mover import MemoryMover
from tests.controller.world import World, disk, succeeded, vm

DOMAIN = "domain-1"


def load(at_once: int, running: int, waiting: int) -> Load:
    return Load(at_once=at_once, running=running, waiting=waiting)


class Site:
    """Three hosts, what their movers tell of their load, and a clock."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.engine.known_hosts = [
            Host(id=f"host-{n}", name=f"host{n}", address=f"127.0.0.{n}", status="up") for n in (1, 2, 3)
        ]
        self.loads: dict[str, Load | None] = dict.fromkeys(("host-1", "host-2", "host-3"), load(4, 0, 0))
        self.silent: set[str] = set()
        self.asked = 0
        self.now = 0.0
        self.spread = Spread(self.engine, self, clock=lambda: self.now)

    def at(self, host_id: str) -> Mover:
        return _Told(self, host_id)  # type: ignore[return-value] # only its health is asked for

    def choose(self, count: int) -> list[str | None]:
        return [self.spread.for_disk(DOMAIN) for _ in range(count)]


class _Told:
    def __init__(self, site: Site, host_id: str) -> None:
        self._site, self._id = site, host_id

    def health(self) -> Health:
        self._site.asked += 1
        if self._id in self._site.silent:
            raise MoverUnreachable(host=self._id, url="https://x", reason="no answer")
        return Health(version="1", host=self._id, load=self._site.loads[self._id])


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_least_loaded_comes_first(site: Site) -> None:
    site.loads = {"host-1": load(4, 3, 0), "host-2": load(8, 3, 0), "host-3": load(4, 4, 9)}
    assert site.choose(1) == ["host-2"]


def test_what_was_given_since_the_last_look_counts(site: Site) -> None:
    site.loads["host-3"] = load(4, 4, 0)
    assert site.choose(6) == ["host-1", "host-2"] * 3
    assert site.asked == 3, "all were asked once"
    site.loads["host-1"] = load(4, 4, 2)
    site.now += LOOK
    assert site.choose(2) == ["host-2", "host-2"]
    assert site.asked == 6


def test_a_mover_that_does_not_answer_gets_nothing(site: Site) -> None:
    site.silent = {"host-1"}
    assert set(site.choose(4)) == {"host-2", "host-3"}
    assert site.spread.order(first="host-1")[0] != "host-1"


def test_an_older_mover_counts_as_idle(site: Site) -> None:
    site.loads = {"host-1": load(4, 2, 0), "host-2": None, "host-3": load(4, 4, 0)}
    assert site.choose(1) == ["host-2"]


def test_hosts_that_do_not_reach_the_storage_or_are_not_up_get_nothing(site: Site) -> None:
    site.engine.blind_hosts = {DOMAIN: {"host-1"}}
    site.engine.known_hosts[1] = dataclasses.replace(site.engine.known_hosts[1], status="maintenance")
    assert site.choose(3) == ["host-3"] * 3
    assert set(site.spread.order()) == {"host-1", "host-3"}, "a target is reached by all"


def test_when_nobody_answers_the_manager_chooses(site: Site) -> None:
    site.silent = set(site.loads)
    assert site.choose(1) == [None]
    assert site.spread.order() == ()
    site.engine.known_hosts = []
    site.now += 100
    assert site.choose(1) == [None]


def test_the_host_of_the_vm_comes_first_and_the_others_by_load(site: Site) -> None:
    site.loads = {"host-1": load(4, 2, 0), "host-2": load(4, 4, 0), "host-3": load(4, 1, 0)}
    assert site.spread.order(first="host-2") == ("host-2", "host-3", "host-1")


@pytest.fixture
def second(world: World) -> MemoryMover:
    """Another host, whose mover has less to do than the first, which runs a copy that does not end."""
    mover = MemoryMover("host2", outcome=world.write_image)
    world.memory.known_hosts.append(Host(id="host-2", name="host2", address="127.0.0.2", status="up"))
    world.ports.movers._movers["host-2"] = mover  # type: ignore[attr-defined] # the directory of this test
    return mover


def test_a_vm_that_is_down_is_copied_by_the_least_loaded_mover(world: World, second: MemoryMover) -> None:
    world.add(vm("busy", disk("a")))
    world.mover.held = True
    first = world.start_backup()
    world.until(lambda: world.mover.running())
    world.add(dataclasses.replace(vm("cold", disk("b")), status=VmStatus.DOWN, host_id=""), workload="cold")
    assert succeeded(world.finish(world.start_backup(workload="cold")))
    assert [status.id.split(":")[1] for status in second.orders()] == ["b-disk"]
    world.mover.release()
    assert succeeded(world.finish(first))
    assert [status.id.split(":")[1] for status in world.mover.orders()] == ["a-disk"], (
        "the one that is up by its own host's"
    )


def test_the_disks_of_a_restore_are_spread(world: World, second: MemoryMover) -> None:
    world.add(vm("web", disk("a"), disk("b")))
    made = world.finish(world.start_backup())
    assert succeeded(made)
    point = world.repository.points()[0]
    before = {status.id for status in world.mover.orders()}
    assert succeeded(world.finish(world.start_restore(point.id, "again")))
    assert len(second.orders()) == 1
    assert len({status.id for status in world.mover.orders()} - before) == 1
