# SPDX-License-Identifier: GPL-3.0-or-later
"""What every mover must do, run against the real one over HTTPS and against the twin in memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from overkeep.config import MoverConfig
from overkeep.errors import NotFound, OverkeepError
from overkeep.model.probes import Terms
from overkeep.mover.api import Mover
from overkeep.mover.errors import (
    FencedOff,
    MoverBusy,
    MoverUnreachable,
    OrderDiffers,
    OrderRefused,
    OrderUnknown,
    WrongHost,
)
from overkeep.mover.orders import ORDER, Access, CopyOrder, CopyResult, Image, OrderState, OrderStatus
from overkeep.testing.mover import MemoryMover

HOST = "host1"
DEADLINE = 90.0
IMAGE = Image(target="nfs1", repository="r1", folder="workloads/w/vms/v/disks/d", name="p1.qcow2")


class NoRoom(OverkeepError):
    """An error as a copy may raise it."""

    code = "no-room"
    template = "There is no room on {what}."
    retry = True


class Rig(Protocol):
    """A mover and the strings it hangs on."""

    mover: Mover

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def fail_with(self, error: OverkeepError) -> None: ...
    def cut(self) -> None:
        """Make it unreachable."""

    def pass_time(self, seconds: float) -> None: ...


class _Memory:
    def __init__(self) -> None:
        self.now = 0.0
        self.mover = MemoryMover(HOST, at_once=2, waiting=2, clock=lambda: self.now)

    def hold(self) -> None:
        self.mover.held = True

    def release(self) -> None:
        self.mover.release()

    def fail_with(self, error: OverkeepError) -> None:
        def outcome(_: CopyOrder) -> CopyResult:
            raise error

        self.mover.outcome = outcome

    def cut(self) -> None:
        self.mover.reachable = False

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class _Https:
    def __init__(self, service: Any, client: Mover, gate: Any) -> None:
        self._service, self._gate = service, gate
        self.mover = client
        self._place = socket.socket()

    def close(self) -> None:
        self._place.close()

    def hold(self) -> None:
        self._gate.hold()

    def release(self) -> None:
        self._gate.release()

    def fail_with(self, error: OverkeepError) -> None:
        self._gate.error = error

    def cut(self) -> None:
        port = self._service.port
        self._service.__exit__(None, None, None)
        # Bound and not listening: nobody answers there, and no mover of another test gets the port.
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", port))

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)  # the lease is about real silence: there is nothing to wait for


@pytest.fixture(params=["memory", "https"])
def rig(
    request: pytest.FixtureRequest,
    settings: MoverConfig,
    gate: Any,
    serve: Callable[..., tuple[Any, Mover]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Rig]:
    """Both movers: two orders at once, two more may wait."""
    if request.param == "memory":
        yield _Memory()
        return
    monkeypatch.setattr("overkeep.mover.service.WAITING", 2)
    https = _Https(*serve(settings, gate), gate)
    yield https
    https.close()


def order(name: str = "p1.qcow2", **changes: object) -> CopyOrder:
    values = {"host": HOST, "source": Access(ticket="t1"), "sink": IMAGE.model_copy(update={"name": name})}
    return CopyOrder.model_validate({**values, **changes})


def follow(mover: Mover, order_id: str, *, until: OrderState | None = None) -> OrderStatus:
    """Poll as a controller does until the order is in `until`, or in any final state."""
    deadline = time.monotonic() + DEADLINE
    status = mover.wait(order_id, after=0)
    while not (status.state is until or status.state.terminal):
        assert time.monotonic() < deadline, status
        status = mover.wait(order_id, after=status.seq, timeout=5)
    return status


def test_an_order_is_accepted_and_done(rig: Rig) -> None:
    first = rig.mover.put("j:d:1", order())
    assert (first.id, first.seq >= 1) == ("j:d:1", True)
    last = follow(rig.mover, "j:d:1")
    assert last.state is OrderState.DONE
    assert last.result is not None
    assert last.result.covered > 0
    assert last.seq > 1


def test_health_names_the_host_and_its_load(rig: Rig) -> None:
    health = rig.mover.health()
    assert health.host == HOST
    assert health.load is not None
    assert (health.load.running, health.load.waiting) == (0, 0)
    assert health.load.at_once > 0


def test_repeating_an_order_returns_its_state(rig: Rig) -> None:
    rig.mover.put("j:d:1", order())
    done = follow(rig.mover, "j:d:1")
    assert rig.mover.put("j:d:1", order()) == done
    assert rig.mover.orders() == (done,)


def test_another_body_under_the_same_id_is_refused(rig: Rig) -> None:
    rig.mover.put("j:d:1", order())
    with pytest.raises(OrderDiffers) as caught:
        rig.mover.put("j:d:1", order(fence=2))
    assert "j:d:1" in str(caught.value)


def test_a_lower_fence_is_refused(rig: Rig) -> None:
    rig.mover.put("j:d:2", order(fence=2))
    with pytest.raises(FencedOff):
        rig.mover.put("j:d:1", order(fence=1))
    rig.mover.put("j:d:9", order(name="other.qcow2", fence=1))
    assert follow(rig.mover, "j:d:9").state is OrderState.DONE


def test_an_error_of_the_copy_becomes_the_outcome(rig: Rig) -> None:
    rig.fail_with(NoRoom(what="nfs1"))
    rig.mover.put("j:d:1", order())
    status = follow(rig.mover, "j:d:1")
    assert status.state is OrderState.FAILED
    assert (status.error_code, status.error, status.retry) == ("no-room", "There is no room on nfs1.", True)


def test_a_running_order_is_cancelled(rig: Rig) -> None:
    rig.hold()
    rig.mover.put("j:d:1", order())
    assert follow(rig.mover, "j:d:1", until=OrderState.RUNNING).state is OrderState.RUNNING
    status = rig.mover.cancel("j:d:1")
    assert (status.state, status.error_code) == (OrderState.CANCELLED, "cancelled")
    rig.release()
    assert rig.mover.wait("j:d:1", after=0) == status


def test_cancelling_what_is_done_changes_nothing(rig: Rig) -> None:
    rig.mover.put("j:d:1", order())
    done = follow(rig.mover, "j:d:1")
    assert rig.mover.cancel("j:d:1") == done


def test_orders_for_one_sink_take_turns(rig: Rig) -> None:
    rig.hold()
    rig.mover.put("j:d:1", order())
    follow(rig.mover, "j:d:1", until=OrderState.RUNNING)
    assert rig.mover.put("j:d:2", order(fence=2)).state is OrderState.ACCEPTED
    rig.mover.put("j:e:1", order(name="other.qcow2"))
    assert follow(rig.mover, "j:e:1", until=OrderState.RUNNING).state is OrderState.RUNNING
    assert rig.mover.wait("j:d:2", after=0).state is OrderState.ACCEPTED
    rig.release()
    assert follow(rig.mover, "j:d:2").state is OrderState.DONE


@pytest.mark.parametrize("kind", ["merge", "verify"])
def test_bookkeeping_has_the_folder_of_a_disk_for_itself(rig: Rig, kind: str) -> None:
    rig.hold()
    disk = {"target": IMAGE.target, "repository": IMAGE.repository, "folder": IMAGE.folder}
    names = {"merge": "remove", "verify": "images"}
    kept = ORDER.validate_python({"kind": kind, "host": HOST, **disk, names[kind]: ["p0.qcow2"]})
    rig.mover.put("j:d:1", kept)
    assert follow(rig.mover, "j:d:1", until=OrderState.RUNNING).state is OrderState.RUNNING
    assert rig.mover.put("j:d:2", order()).state is OrderState.ACCEPTED
    source, sink = IMAGE.model_copy(update={"name": "p9.qcow2"}), Access(ticket="t9")
    rig.mover.put("j:d:3", order(source=source, sink=sink))  # a restore may read beside a check
    if kind == "verify":
        assert follow(rig.mover, "j:d:3", until=OrderState.RUNNING).state is OrderState.RUNNING
    else:
        assert rig.mover.wait("j:d:3", after=0).state is OrderState.ACCEPTED
    assert rig.mover.wait("j:d:2", after=0).state is OrderState.ACCEPTED
    rig.release()
    for number in (1, 2, 3):
        assert follow(rig.mover, f"j:d:{number}").state is OrderState.DONE
    assert rig.mover.put("j:d:1", kept).state is OrderState.DONE
    with pytest.raises(OrderDiffers):
        rig.mover.put("j:d:1", kept.model_copy(update={"fence": 2}))


def test_merges_of_one_disk_by_several_jobs_need_no_fence(rig: Rig) -> None:
    disk = {"target": IMAGE.target, "repository": IMAGE.repository, "folder": IMAGE.folder}
    merge = ORDER.validate_python({"kind": "merge", "host": HOST, **disk, "remove": ["p0.qcow2"], "fence": 3})
    rig.mover.put("j:d:3", merge)
    assert follow(rig.mover, "j:d:3").state is OrderState.DONE
    rig.mover.put("k:d:1", merge.model_copy(update={"fence": 1}))
    assert follow(rig.mover, "k:d:1").state is OrderState.DONE


def test_a_cancelled_merge_says_that_its_work_is_kept(rig: Rig) -> None:
    rig.hold()
    disk = {"target": IMAGE.target, "repository": IMAGE.repository, "folder": IMAGE.folder}
    rig.mover.put("j:d:1", ORDER.validate_python({"kind": "merge", "host": HOST, **disk, "remove": ["p0.qcow2"]}))
    follow(rig.mover, "j:d:1", until=OrderState.RUNNING)
    status = rig.mover.cancel("j:d:1")
    assert (status.state, status.error_code) == (OrderState.CANCELLED, "cancelled")
    assert "is kept" in status.error


def test_a_waiting_order_is_cancelled_without_running(rig: Rig) -> None:
    rig.hold()
    rig.mover.put("j:d:1", order())
    rig.mover.put("j:d:2", order(fence=2))
    assert rig.mover.cancel("j:d:2").state is OrderState.CANCELLED
    assert follow(rig.mover, "j:d:1", until=OrderState.RUNNING).state is OrderState.RUNNING


def test_too_many_waiting_orders_are_refused(rig: Rig) -> None:
    rig.hold()
    for number in range(4):
        rig.mover.put(f"j:d{number}:1", order(name=f"p{number}.qcow2"))
    with pytest.raises(MoverBusy) as caught:
        rig.mover.put("j:d4:1", order(name="p4.qcow2"))
    assert caught.value.retry
    assert rig.mover.put("j:d3:1", order(name="p3.qcow2")).state is OrderState.ACCEPTED
    rig.release()
    assert follow(rig.mover, "j:d3:1").state is OrderState.DONE
    rig.mover.put("j:d4:1", order(name="p4.qcow2"))


def test_silence_ends_an_order(rig: Rig) -> None:
    rig.hold()
    rig.mover.put("j:d:1", order(lease=0.5))
    rig.pass_time(1.0)
    status = rig.mover.wait("j:d:1", after=0, timeout=0)
    if not status.state.terminal:  # stopping takes its time
        status = follow(rig.mover, "j:d:1")
    assert (status.state, status.error_code, status.retry) == (OrderState.FAILED, "lease-expired", True)


def test_contact_keeps_an_order(rig: Rig) -> None:
    rig.hold()
    rig.mover.put("j:d:1", order(lease=2.5))
    for _ in range(6):
        rig.pass_time(0.5)
        assert not rig.mover.wait("j:d:1", after=0, timeout=0).state.terminal
    rig.release()
    assert follow(rig.mover, "j:d:1").state is OrderState.DONE


def test_unknown_orders(rig: Rig) -> None:
    with pytest.raises(OrderUnknown):
        rig.mover.wait("j:d:1", after=0)
    with pytest.raises(OrderUnknown):
        rig.mover.cancel("j:d:1")
    assert rig.mover.orders() == ()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"host": "host2"}, WrongHost),
        ({"source": IMAGE}, OrderRefused),
        ({"sink": Access(ticket="t2")}, OrderRefused),
        ({"dirty": True}, OrderRefused),
        ({"sink": IMAGE.model_copy(update={"target": "nowhere"})}, OrderRefused),
        ({"sink": IMAGE.model_copy(update={"backing": "p1.qcow2"})}, OrderRefused),
    ],
)
def test_orders_that_make_no_sense(rig: Rig, changes: dict[str, object], kind: type[OverkeepError]) -> None:
    with pytest.raises(kind):
        rig.mover.put("j:d:1", order(**changes))
    assert rig.mover.orders() == ()


def test_a_target_that_the_mover_has_not_cannot_be_tried_out(rig: Rig) -> None:
    with pytest.raises(NotFound, match="nfs9"):
        rig.mover.probe("nfs9", Terms(), repository="")
    rig.cut()
    with pytest.raises(MoverUnreachable):
        rig.mover.probe("nfs1", Terms(), repository="")


def test_a_mover_that_is_down(rig: Rig) -> None:
    rig.cut()
    with pytest.raises(MoverUnreachable) as caught:
        rig.mover.put("j:d:1", order())
    assert caught.value.retry
    assert HOST in str(caught.value)
    assert "https://" in str(caught.value)
