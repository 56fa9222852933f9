# SPDX-License-Identifier: GPL-3.0-or-later
"""A mover with a mounted target, and orders for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overkeep.config import MoverConfig, TargetConfig
from overkeep.mover.client import MoverClient
from overkeep.mover.orders import Access, CopyOrder, Image, Order, OrderState, OrderStatus
from overkeep.units import MIB

DEADLINE = 90.0
CANCELLED_WITHIN = 2.0  # seconds
FOLDER = "workloads/w/vms/v/disks/d"
SIZE = 64 * MIB
SPEED = 8 * MIB  # bytes a second of a throttled source


def tool(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def write(image: Path, *commands: str) -> None:
    """What a guest writes."""
    words = [word for command in commands for word in ("-c", command)]
    tool("qemu-io", "-f", "qcow2", *words, image)


def assert_same(expected: Path, image: Path) -> None:
    tool("qemu-img", "check", "-q", image)
    tool("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", expected, image)


class Bench:
    """A mover with a mounted target, and orders for it."""

    def __init__(self, client: MoverClient, target: Any, tickets: Any) -> None:
        self.client, self.target, self.tickets = client, target, tickets
        self.folder = target.root / FOLDER

    def image(self, name: str, backing: str | None = None, **changes: str) -> Image:
        values = {
            "target": "nfs1",
            "repository": self.target.repository,
            "folder": FOLDER,
            "name": name,
            "backing": backing,
        }
        return Image.model_validate({**values, **changes})

    def backup(self, url: str, name: str = "p1.qcow2", *, backing: str | None = None, **changes: Any) -> CopyOrder:
        dirty = changes.get("dirty", False)
        ticket = changes.pop("ticket", None) or self.tickets.add(url, dirty=dirty)
        sink = changes.pop("sink", None) or self.image(name, backing)
        return CopyOrder(host="host1", source=Access(ticket=ticket), sink=sink, **changes)

    def run(self, order: Order, order_id: str = "j:d:1") -> OrderStatus:
        """Order and follow to the end."""
        self.client.put(order_id, order)
        return self.follow(order_id)

    def done(self, order: Order, order_id: str = "j:d:1") -> OrderStatus:
        status = self.run(order, order_id)
        assert status.state is OrderState.DONE, status
        return status

    def failed(self, order: Order, order_id: str = "j:d:1") -> OrderStatus:
        status = self.run(order, order_id)
        assert status.state is OrderState.FAILED, status
        return status

    def follow(self, order_id: str, until: Callable[[OrderStatus], bool] = lambda _: False) -> OrderStatus:
        deadline = time.monotonic() + DEADLINE
        status = self.client.wait(order_id, after=0, timeout=0)
        while not (until(status) or status.state.terminal):
            assert time.monotonic() < deadline, status
            status = self.client.wait(order_id, after=status.seq, timeout=5)
        return status

    def until_moving(self, order_id: str = "j:d:1") -> OrderStatus:
        status = self.follow(order_id, lambda status: status.progress.moved > 0)
        assert status.state is OrderState.RUNNING, status
        return status

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []


def settings_for(settings: MoverConfig, targets: tuple[TargetConfig, ...], tickets: Any) -> MoverConfig:
    return settings.model_copy(
        update={
            "target": targets,
            "imageio_control_socket": tickets.control,
            "imageio_local_socket": tickets.local,
        }
    )
