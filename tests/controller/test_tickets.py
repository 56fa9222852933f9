from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overkeep.controller.records import JobState
from overkeep.errors import OverkeepError
from overkeep.mover.imageio import TicketUnknown
from overkeep.mover.orders import Access, CopyOrder, CopyResult
from tests.controller.world import World, disk, succeeded, vm, with_patience


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With room for few attempts, so that none may be wasted on a ticket that is dead."""
    with World(tmp_path, patience=with_patience(attempts=2, ticket=2.0)) as world:
        world.add(vm("web", disk("root")))
        yield world


def lose_first_ticket(world: World) -> threading.Event:
    """Let no copy work with the first ticket that is used; return what tells that it was tried."""
    dead: list[str] = []
    tried = threading.Event()

    def copy(order: CopyOrder) -> CopyResult:
        ticket = ticket_of(order)
        dead[:] = dead or [ticket]
        if ticket in dead:
            tried.set()
            raise TicketUnknown(ticket=ticket)
        return world.write_image(order)

    world.mover.outcome = copy
    return tried


def ticket_of(order: CopyOrder) -> str:
    access = order.source if isinstance(order.source, Access) else order.sink
    assert isinstance(access, Access)
    return access.ticket


def notice(world: World, phase: str) -> None:
    """Let the Manager see what happened, some looks later."""
    [transfer_id] = world.memory.open_transfers()
    looks = world.memory.calls.count("transfer")
    world.until(lambda: world.memory.calls.count("transfer") > looks + 3)
    world.memory.set_phase(transfer_id, phase)


def assert_second_attempt_did_it(world: World) -> None:
    first, second = world.mover.received.values()
    assert (first.fence, second.fence) == (1, 2)
    assert ticket_of(first) != ticket_of(second)
    world.assert_nothing_open()


def test_a_download_whose_loss_is_noticed_late(world: World) -> None:
    tried = lose_first_ticket(world)
    job = world.start_backup()
    assert tried.wait(90)
    notice(world, "finished_failure")
    job = world.finish(job)
    assert succeeded(job), job.failure
    assert "is copied again" in world.texts(job)
    assert_second_attempt_did_it(world)


def test_a_download_whose_loss_is_never_noticed(world: World) -> None:
    lose_first_ticket(world)
    job = world.back_up()
    assert succeeded(job), job.failure
    assert "did not notice" in world.texts(job)
    assert_second_attempt_did_it(world)


def test_an_upload_that_the_manager_pauses_is_resumed(world: World) -> None:
    assert succeeded(world.back_up())
    world.mover.received.clear()
    tried = lose_first_ticket(world)
    job = world.start_restore(world.repository.points()[-1].id, "copy")
    assert tried.wait(90)
    notice(world, "paused_system")
    job = world.finish(job)
    assert succeeded(job), job.failure
    assert world.memory.calls.count("create_disk") == 1
    assert_second_attempt_did_it(world)


def test_an_upload_whose_loss_is_never_noticed_keeps_its_disk(world: World) -> None:
    assert succeeded(world.back_up())
    world.mover.received.clear()
    lose_first_ticket(world)
    job = world.restore(world.repository.points()[-1].id, "copy")
    assert succeeded(job), job.failure
    assert "cancel_transfer" not in world.memory.calls
    assert world.memory.calls.count("create_disk") == 1
    assert_second_attempt_did_it(world)


def test_a_cancel_does_not_wait_for_the_manager(tmp_path: Path) -> None:
    with World(tmp_path, patience=with_patience(ticket=600.0)) as world:
        world.add(vm("web", disk("root")))
        tried = lose_first_ticket(world)
        job = world.start_backup()
        assert tried.wait(90)
        world.until(lambda: "is copied again" in world.texts(job))
        asked = time.monotonic()
        world.controller.cancel(world.controller.job(job.id))
        assert world.finish(job).state is JobState.CANCELLED
        assert time.monotonic() - asked < 10
        assert len(world.mover.received) == 1
        world.assert_nothing_open()


def test_a_disk_that_waits_gives_up_when_another_fails(tmp_path: Path) -> None:
    """The disk that lost its ticket would wait for ten minutes."""
    with World(tmp_path, patience=with_patience(ticket=600.0)) as world:
        world.add(vm("web", disk("root"), disk("data")))
        world.mover.held = True
        job = world.start_backup()
        [root, data] = world.until(lambda: len(world.mover.received) == 2 and sorted(world.mover.received, key=_root))
        world.mover.end(root, TicketUnknown(ticket="t"))
        world.until(lambda: "is copied again" in world.texts(job))
        world.mover.end(data, NoRoom())
        job = world.finish(job)
        assert (job.state, job.failure.code) == (JobState.FAILED, "no-room")
        world.assert_nothing_open()


class NoRoom(OverkeepError):
    code = "no-room"
    template = "There is no room."


def _root(order_id: str) -> bool:
    return "root-disk" not in order_id
