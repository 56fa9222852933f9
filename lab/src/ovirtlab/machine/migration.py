# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine moved into another QEMU while it runs, in the QMP commands libvirt sends, over storage that both can reach.

Bitmaps need no help: the QEMU that gives up the disks stores them into the images, the one that takes them over loads
them from there. Disks are given up when all memory has been sent, and taken over only when the new machine is told to
run, so that at any moment before that the old one can go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ovirtlab.machine.errors import HostError
from ovirtlab.machine.qemu import Machine

POLL = 0.02
DOWNTIME_MS = 500
ENDED = frozenset({"completed", "failed", "cancelled"})
UNLIMITED = 10 << 30


async def listen(machine: Machine, address: str) -> str:
    """Let a machine that was started for it wait at `address`, on a port that is free; return where."""
    await machine.execute("migrate-set-capabilities", _capabilities("late-block-activate"))
    await machine.execute("migrate-incoming", {"uri": f"tcp:{address}:0"})
    (place,) = (await machine.execute("query-migrate"))["socket-address"]
    return f"tcp:{place['host']}:{place['port']}"


async def send(machine: Machine, uri: str, *, bandwidth: int, stall: float, report: Callable[[int], None]) -> int:
    """Copy a machine to the QEMU that listens at `uri`, and stop it; return for how many ms it does not run.

    `report` is told the percentage, `bandwidth` is in bytes a second, 0 for no limit. `HostError` when it was
    cancelled, did not succeed or made no progress for `stall` seconds: then it is still here, see `take_back`.
    """
    machine.departing = True
    await machine.execute(
        "migrate-set-parameters",
        {"max-bandwidth": bandwidth or UNLIMITED, "downtime-limit": DOWNTIME_MS},
    )
    await machine.execute("migrate-set-capabilities", _capabilities("auto-converge"))
    await machine.execute("migrate", {"uri": uri})
    found = await _watched(machine, stall, report)
    if found["status"] != "completed":
        reason = found.get("error-desc") or f"it was {found['status']}"
        raise HostError(f"VM {machine.spec.name} was not migrated: {reason}")
    report(100)
    return int(found.get("downtime", 0))


async def cancel(machine: Machine) -> None:
    """Give a migration up; `HostError` when none is under way. `send` then raises, unless it was over already."""
    if (await machine.execute("query-migrate")).get("status") in (None, "none", *ENDED):
        raise HostError(f"VM {machine.spec.name} is not being migrated")
    await machine.execute("migrate_cancel")


async def take_over(machine: Machine, *, timeout: float) -> None:
    """Let a machine run that has arrived; `HostError` when it has not arrived whole in time."""
    deadline = time.monotonic() + timeout
    while (status := (await machine.execute("query-migrate")).get("status")) != "completed":
        if status in ENDED:
            raise HostError(f"VM {machine.spec.name} did not arrive: {machine.output() or status}")
        if time.monotonic() > deadline:
            raise HostError(f"VM {machine.spec.name} did not arrive in {timeout:g} s")
        await asyncio.sleep(POLL)
    await machine.resume()


async def take_back(machine: Machine) -> None:
    """Let a machine go on that was not taken over, unless it has stopped by itself: its disks are its own again."""
    if (await machine.execute("query-migrate")).get("status") not in (None, "none", *ENDED):
        await machine.execute("migrate_cancel")
        while (await machine.execute("query-migrate")).get("status") not in ENDED:
            await asyncio.sleep(POLL)
    machine.departing = False
    if machine.state == "up":
        await machine.resume()


async def save(machine: Machine, state: Path) -> None:
    """Write a machine's state to a file and stop it; when that fails it goes on, and there is no file."""
    machine.departing = True
    try:
        await machine.save(state)
    except HostError:
        await take_back(machine)
        state.unlink(missing_ok=True)
        raise


async def _watched(machine: Machine, stall: float, report: Callable[[int], None]) -> Mapping[str, Any]:
    """Follow a migration to its end, or cancel it when nothing moves any more or the machine has stopped by itself."""
    mark, since = "", time.monotonic()
    while (found := await machine.execute("query-migrate"))["status"] not in ENDED:
        memory = found.get("ram", {})
        report(_percent(memory))
        now = f"{found['status']} {memory.get('transferred')} {memory.get('dirty-sync-count')}"
        if now != mark:
            mark, since = now, time.monotonic()
        stalled = time.monotonic() - since > stall
        if stalled or machine.state != "up":
            await machine.execute("migrate_cancel")
            await _ended(machine)
            reason = f"there was no progress for {stall:g} s" if stalled else "it stopped by itself"
            return {"status": "cancelled", "error-desc": reason}
        await asyncio.sleep(POLL)
    return dict(found)


async def _ended(machine: Machine) -> None:
    while (await machine.execute("query-migrate"))["status"] not in ENDED:
        await asyncio.sleep(POLL)


def _percent(memory: Mapping[str, Any]) -> int:
    """How much of the memory need not be sent any more; 99 at most, as the end is told by the status."""
    total, left = memory.get("total", 0), memory.get("remaining", 0)
    return min(99, 100 - 100 * left // total) if total and memory.get("transferred") else 0


def _capabilities(name: str) -> dict[str, Any]:
    return {"capabilities": [{"capability": name, "state": True}]}
