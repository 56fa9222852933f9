# SPDX-License-Identifier: GPL-3.0-or-later
"""Acts on the block layer of a running machine: qemu-io commands, plugging disks in and out, growing them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from contextlib import AsyncExitStack

from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import (
    DiskNode,
    Layer,
    backing_options,
    device_options,
    drive_option,
    format_options,
    storage_options,
)
from ovirtlab.machine.qemu import Machine

UNPLUG_TIMEOUT = 20.0
POLL = 0.02
MOVING = frozenset({"read", "readv", "write", "writev", "discard", "flush"})
# Lines qemu-io prints when all went well; whatever else it prints about moving bytes is an error.
GOOD_LINES = (
    re.compile(r"(wrote|read|discard) (\d+)/\2 bytes at offset \d+"),
    re.compile(r"[\d.]+ (bytes|[KMGT]iB), \d+ ops; .*"),
    re.compile(r"[0-9a-f]{8,}:(  [0-9a-f]{2})+ .*"),
)
COMPLAINT = re.compile(r"error|failed|invalid|not found|not supported|bad ", re.IGNORECASE)


async def block_io(machine: Machine, target: str, command: str) -> str:
    """Run a qemu-io command (`write -P 0x5a 1M 64k`) on the disk `target` and return what it printed.

    It goes in where the guest's device does, above the filter of a running backup. `HostError` on any failure: QEMU
    tells of errors only in text, of some in the monitor's answer and of most on its standard output.
    """
    disk = find_disk(machine, target)
    quoted = command.replace("\\", "\\\\").replace('"', '\\"')
    where = disk.device if machine.spec.boot is None else f"-d /machine/peripheral/{disk.device}/virtio-backend"
    if machine.state == "down":
        raise HostError(f"VM {machine.spec.name} is not running")
    async with machine.output_lock:
        before = machine.output_size()
        text = await machine.monitor.hmp(f'qemu-io {where} "{quoted}"')
        text += machine.output_since(before)
    if complaint := find_complaint(command, text):
        raise HostError(f"{command!r} on {target} of VM {machine.spec.name} failed: {complaint}")
    return text


def find_complaint(command: str, text: str) -> str:
    """The line of qemu-io's output that tells of a failure, or an empty string."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if command.split()[0] in MOVING:
        return next((line for line in lines if not any(good.fullmatch(line) for good in GOOD_LINES)), "")
    return next((line for line in lines if COMPLAINT.search(line)), "")


def find_disk(machine: Machine, target: str) -> DiskNode:
    if target not in machine.disks:
        raise HostError(f"VM {machine.spec.name} has no disk {target}")
    return machine.disks[target]


async def plug(machine: Machine, disk: DiskNode) -> None:
    """Add a disk to a running machine."""
    if disk.target in machine.disks:
        raise HostError(f"VM {machine.spec.name} has a disk {disk.target} already")
    if machine.spec.boot is None:
        await _hmp_or_fail(machine, f"drive_add 0 {drive_option(disk)}", "OK")
    else:
        await _plug_device(machine, disk)
    machine.disks[disk.target] = disk


async def unplug(machine: Machine, disk: DiskNode) -> None:
    """Remove a disk from a running machine; a guest must let it go within 20 seconds."""
    if machine.spec.boot is None:
        await _hmp_or_fail(machine, f"drive_del {disk.device}", "")
        await remove_nodes(machine, tuple(layer for layer in disk.chain if layer.node != disk.target))
    else:
        await machine.execute("device_del", {"id": disk.device})
        await _remove_unplugged(machine, disk)
    del machine.disks[disk.target]


async def resize(machine: Machine, disk: DiskNode, size: int) -> None:
    """Grow a disk of a running machine to `size` bytes."""
    await machine.execute("block_resize", {"node-name": disk.node, "size": size})


async def _plug_device(machine: Machine, disk: DiskNode) -> None:
    async with AsyncExitStack() as undo:
        for options in (*backing_options(disk), storage_options(disk), format_options(disk)):
            await machine.execute("blockdev-add", options)
            undo.push_async_callback(machine.execute, "blockdev-del", {"node-name": options["node-name"]})
        await machine.execute("device_add", device_options(disk))
        undo.pop_all()


async def _remove_unplugged(machine: Machine, disk: DiskNode) -> None:
    """Remove the nodes as soon as the device is gone, which holds them a moment longer than it is listed."""
    deadline = time.monotonic() + UNPLUG_TIMEOUT
    while True:
        try:
            await machine.execute("blockdev-del", {"node-name": disk.node})
            break
        except HostError as error:
            if "in use" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise HostError(f"the guest of VM {machine.spec.name} does not let go of {disk.target}") from error
        await asyncio.sleep(POLL)
    await machine.execute("blockdev-del", {"node-name": disk.storage})
    await remove_nodes(machine, disk.backing)


async def remove_nodes(machine: Machine, layers: tuple[Layer, ...]) -> None:
    """Close volumes that nothing uses any more, the upper first; some have gone with the node above them."""
    for layer in layers:
        for name in (layer.node, layer.storage):
            with contextlib.suppress(HostError):
                await machine.execute("blockdev-del", {"node-name": name})


async def _hmp_or_fail(machine: Machine, line: str, expected: str) -> None:
    text = (await machine.monitor.hmp(line)).strip()
    if text != expected:
        raise HostError(f"QEMU refused {line!r}: {text}")
