# SPDX-License-Identifier: GPL-3.0-or-later
"""Tickets of a real ovirt-imageio: looked up, checked, kept alive, lost."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.errors import NoChangedBlocks
from overkeep.errors import OverkeepError
from overkeep.mover import access
from overkeep.mover.access import TicketRefuses, interval, kept_alive
from overkeep.mover.imageio import (
    Imageio,
    ImageioUnreachable,
    Ticket,
    TicketBroken,
    TicketCancelled,
    TicketUnknown,
)

DEADLINE = 90.0


@pytest.fixture
def url(tmp_path: Path, nbd: Callable[..., str]) -> str:
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True, timeout=60)
    return nbd(path)


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`, at most `DEADLINE` seconds."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def of(tickets: Any) -> Imageio:
    return Imageio(control=tickets.control, local=tickets.local)


@pytest.mark.parametrize(("timeout", "seconds"), [(0, 20), (1, 0.5), (3, 1), (30, 10), (60, 20), (3600, 20)])
def test_how_often_a_ticket_is_touched(timeout: float, seconds: float) -> None:
    assert interval(timeout) == seconds


def ticket(**changes: Any) -> Ticket:
    values = {"id": "t", "url": "nbd:unix:/s", "ops": frozenset({"read"}), "size": 1, "dirty": False}
    return Ticket(**{**values, "inactivity_timeout": 60.0, **changes})


def test_what_a_ticket_permits() -> None:
    access.check(ticket(), op="read", dirty=False)
    access.check(ticket(url="nbd+unix:///sda?socket=/s", dirty=True), op="read", dirty=True)
    access.check(ticket(ops=frozenset({"read", "write"})), op="write", dirty=False)
    with pytest.raises(TicketRefuses, match="permits read"):
        access.check(ticket(), op="write", dirty=False)
    with pytest.raises(TicketRefuses, match="permits write"):
        access.check(ticket(ops=frozenset({"write"})), op="read", dirty=False)
    with pytest.raises(NoChangedBlocks):
        access.check(ticket(), op="read", dirty=True)


def test_a_ticket_is_looked_up(tickets: Any, url: str) -> None:
    made = tickets.add(url, inactivity_timeout=7, dirty=True)
    found = of(tickets).ticket(made)
    assert found == Ticket(id=made, url=url, ops=frozenset({"read"}), size=1 << 26, dirty=True, inactivity_timeout=7.0)
    with pytest.raises(TicketUnknown) as caught:
        of(tickets).ticket("nobody")
    assert caught.value.retry


def test_an_abstract_socket(imageio: Any, url: str) -> None:
    tickets = imageio(abstract=True)
    assert tickets.local.startswith("\\0")
    made = tickets.add(url)
    of(tickets).touch(made)
    tickets.remove(made)
    with pytest.raises(TicketCancelled):
        of(tickets).touch(made)


def test_a_touch_counts_and_leaves_no_connection(tickets: Any, url: str) -> None:
    made = tickets.add(url)
    until(lambda: tickets.get(made)["idle_time"] >= 2)
    began = time.monotonic()
    of(tickets).touch(made)
    idle = tickets.get(made)["idle_time"]
    assert idle <= time.monotonic() - began + 1  # the daemon counts whole seconds
    until(lambda: tickets.get(made)["connections"] == 0)  # it sees the end of a connection a moment later
    assert tickets.get(made)["transferred"] == 0


def test_an_expired_ticket(tickets: Any, url: str) -> None:
    made = tickets.add(url, timeout=0)
    with pytest.raises(TicketCancelled, match="expired"):
        of(tickets).touch(made)


def test_a_ticket_to_nowhere(tickets: Any) -> None:
    made = tickets.add("nbd:unix:/nowhere")
    with pytest.raises(TicketBroken):
        of(tickets).touch(made)


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    gone = Imageio(control=str(tmp_path / "c"), local=str(tmp_path / "l"))
    with pytest.raises(ImageioUnreachable, match="imageio_control_socket") as caught:
        gone.ticket("t")
    assert caught.value.retry
    assert str(tmp_path / "c") in str(caught.value)
    with pytest.raises(ImageioUnreachable, match="imageio_local_socket"):
        gone.touch("t")
    with pytest.raises(ImageioUnreachable, match=r"at \\0/no"):
        Imageio(control="\\0/no", local="").ticket("t")


def test_a_ticket_taken_away_is_told_at_once(tickets: Any, url: str) -> None:
    made = tickets.add(url, inactivity_timeout=1)
    imageio = of(tickets)
    told: list[OverkeepError] = []
    lost = threading.Event()

    def tell(error: OverkeepError) -> None:
        told.append(error)
        lost.set()

    with kept_alive(imageio, imageio.ticket(made), lost=tell):
        assert not told
        tickets.remove(made)
        assert lost.wait(DEADLINE)
    assert isinstance(told[0], TicketCancelled)
    assert made[:8] in str(told[0])
    assert made not in str(told[0])


def test_a_silent_daemon_does_not_end_the_copy(tickets: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    made = tickets.add(url, inactivity_timeout=1)
    imageio = of(tickets)
    told: list[OverkeepError] = []
    with kept_alive(imageio, imageio.ticket(made), lost=told.append):
        tickets.kill()
        until(lambda: bool(caplog.records))
        time.sleep(1.2)  # two more touches, and no more lines: nothing to wait for
    assert not told
    assert [record.getMessage().partition(" ticket=")[0] for record in caplog.records] == ["ticket not kept alive"]


def test_what_can_be_made_out_without_the_control_service(tickets: Any, url: str, tmp_path: Path) -> None:
    blind = Imageio(control=str(tmp_path / "none"), local=tickets.local)
    assert blind.ticket_unseen(tickets.add(url)).ops == {"read"}
    assert blind.ticket_unseen(tickets.add(url, op="write")).ops == {"write"}
    with pytest.raises(TicketCancelled):
        blind.ticket_unseen("nobody")
    with pytest.raises(ImageioUnreachable, match="imageio_local_socket"):
        access.look_up(Imageio(control="/none", local="/none"), "t", op="read", dirty=False)
