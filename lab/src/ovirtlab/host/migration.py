# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM moved from one host to another while it runs, in the steps that libvirt's hosts take together.

Begin (what runs), prepare (a QEMU that waits), perform (memory is copied, the VM stops), finish (it runs on at the
other host), confirm (the first one lets it go). Until it has run at the other host, it can go on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ovirtlab.host.api import Host, MigrationLimits
from ovirtlab.machine.errors import HostError

log = logging.getLogger(__name__)


async def migrate(
    vm_id: str, source: Host, sink: Host, *, limits: MigrationLimits, report: Callable[[int], None]
) -> int:
    """Move a VM and return for how many ms it did not run.

    On any error it goes on at `source`, if it still is alive there, and nothing is left at `sink`.
    """
    definition = await source.describe_vm(vm_id)
    try:
        uri = await sink.prepare_vm(definition)
        departure = await source.send_vm(vm_id, uri, limits=limits, report=report)
        await sink.take_over_vm(vm_id, booted=departure.booted, timeout=limits.stall)
    except BaseException:
        await asyncio.shield(_give_up(vm_id, source, sink))
        raise
    await source.discard_vm(vm_id)
    return departure.downtime


async def _give_up(vm_id: str, source: Host, sink: Host) -> None:
    """The other QEMU must be gone before the first one touches the disks again."""
    await sink.discard_vm(vm_id)
    try:
        await source.take_back_vm(vm_id)
    except HostError as error:
        log.info("VM %s does not go on at host %s: %s", vm_id, source.name, error)
