from __future__ import annotations

import dataclasses
import inspect
import threading

import pytest
from sqlalchemy.exc import OperationalError

from overkeep.controller.activities.steps import Watch
from overkeep.controller.background.fence import ENGINE_ACTS, MOVER_ACTS, Fence, fenced
from overkeep.controller.background.peers import Peers
from overkeep.controller.durable import Stopping
from overkeep.controller.ports import Ports
from overkeep.controller.store import Store
from overkeep.engine.api import Engine
from overkeep.mover.api import Mover
from tests.clock import Clock
from tests.controller.world import World, disk, vm

# What may be done by a controller that was declared dead: to look, to let a guest go on, to write under a number.
ENGINE_LOOKS = frozenset(
    {
        "test",
        "vm",
        "find_vm",
        "vms",
        "places",
        "candidates",
        "hosts",
        "hosts_seeing",
        "configuration",
        "checkpoints",
        "backup",
        "backups",
        "transfer",
        "transfers",
        "snapshot_status",
        "disk_status",
        "find_marked_vm",
        "storage_domains",
        "clusters",
        "vnic_profiles",
        "explain",
        "close",
        "thaw",
        "post_event",
    }
)
MOVER_LOOKS = frozenset({"wait", "orders", "health", "check", "probe", "close"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def fence(clock: Clock, stopping: threading.Event) -> Fence:
    return Fence(30, stopping=stopping, clock=clock)


def test_one_that_stops_begins_nothing_more(fence: Fence, stopping: threading.Event) -> None:
    fence.wait()
    stopping.set()
    with pytest.raises(Stopping):
        fence.wait()


def waits(fence: Fence, clock: Clock, stopping: threading.Event) -> bool:
    """Whether an act waits at the fence: it does not come through before the controller stops."""
    reads = iter(range(3))

    def stop_at_the_third_look() -> None:
        if next(reads, None) is None:
            stopping.set()

    clock.asked = stop_at_the_third_look
    try:
        fence.wait()
    except Stopping:
        return True
    finally:
        clock.asked = lambda: None
        stopping.clear()
    return False


@pytest.mark.parametrize(("age", "held"), [(0, False), (5, False), (23.9, False), (24, True), (30, True), (9e9, True)])
def test_who_was_not_heard_for_most_of_a_ttl_waits(
    fence: Fence, clock: Clock, stopping: threading.Event, age: float, held: bool
) -> None:
    fence.heard(100)
    clock.now = 100 + age
    assert waits(fence, clock, stopping) is held


def test_the_next_beat_opens_the_fence(fence: Fence, clock: Clock) -> None:
    clock.now = 1000  # it slept, or the data base did not answer
    clock.asked = lambda: fence.heard(1000)
    fence.wait()


def test_every_call_of_the_ports_is_an_act_or_a_look() -> None:
    def calls(port: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}

    assert calls(Engine) == ENGINE_ACTS | ENGINE_LOOKS
    assert calls(Mover) == MOVER_ACTS | MOVER_LOOKS
    assert not ENGINE_ACTS & ENGINE_LOOKS
    assert not MOVER_ACTS & MOVER_LOOKS


@pytest.fixture
def ports(world: World, fence: Fence) -> Ports:
    world.add(vm("web", disk("root")))
    return fenced(dataclasses.replace(world.ports, engine=world.memory), fence)


def test_an_act_that_follows_a_sleep_waits_and_a_look_does_not(
    world: World, ports: Ports, fence: Fence, clock: Clock, stopping: threading.Event
) -> None:
    clock.now = 31
    stopping.set()  # what waits ends
    assert ports.engine.vm("web-vm").name == "web"
    ports.engine.thaw("web-vm")
    mover = ports.movers.at("host-1")
    assert (mover.host, mover.orders()) == ("host1", ())
    with pytest.raises(Stopping):
        ports.engine.freeze("web-vm")
    with pytest.raises(Stopping):
        mover.cancel("an-order:disk:1")
    assert world.memory.frozen == set()
    stopping.clear()
    fence.heard(31)
    ports.engine.freeze("web-vm")
    assert world.memory.frozen == {"web-vm"}
    ports.engine.thaw("web-vm")


def test_steps_wait_between_their_acts(ports: Ports, fence: Fence, clock: Clock, stopping: threading.Event) -> None:
    watch = Watch(ports=ports, job_id="j", heeds_cancel=False)
    watch.check()
    clock.now = 31
    stopping.set()
    with pytest.raises(Stopping):
        watch.check()
    stopping.clear()
    fence.heard(31)
    watch.check()


def test_a_beat_counts_from_when_it_was_begun_and_only_when_it_was_written(
    database: str, clock: Clock, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(database)
    peers = Peers(
        store.controllers, "a", take_up=lambda _: None, stopping=stopping, ttl=30, lost=lambda: None, clock=clock
    )
    store.controllers.join("a", "here:1")
    written = store.controllers.beat

    def slowly(executor_id: str) -> bool:
        clock.now += 20
        return written(executor_id)

    monkeypatch.setattr(store.controllers, "beat", slowly)
    peers.beat()
    clock.now = 23
    assert not waits(peers.fence, clock, stopping)
    clock.now = 24
    assert waits(peers.fence, clock, stopping)

    def not_at_all(executor_id: str) -> bool:
        raise OperationalError("UPDATE controller", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(store.controllers, "beat", not_at_all)
    with pytest.raises(OperationalError):
        peers.beat()
    assert waits(peers.fence, clock, stopping)
    monkeypatch.setattr(store.controllers, "beat", written)
    peers.beat()
    assert not waits(peers.fence, clock, stopping)
    store.controllers.leave("a")
    clock.now = 40
    peers.beat()  # declared dead: it would end
    clock.now = 48
    assert waits(peers.fence, clock, stopping)
    store.close()
