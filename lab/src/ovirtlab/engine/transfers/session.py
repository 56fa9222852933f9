# SPDX-License-Identifier: GPL-3.0-or-later
"""A transfer's session on a host: the server that has the data, and the ticket that lets clients at it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ovirtlab.engine.context import Context
from ovirtlab.engine.records import FrozenVolume, ImageTransfer
from ovirtlab.engine.snapshots import volumes
from ovirtlab.engine.snapshots.volumes import format_on_host
from ovirtlab.engine.state import State
from ovirtlab.engine.transfers import audit, proxy
from ovirtlab.engine.transfers.rules import TransferRequest
from ovirtlab.host.api import Host, HostError

log = logging.getLogger(__name__)

_QCOW2_OVERHEAD = 1.1
_QCOW2_HEADER = 1 << 20


class SessionError(Exception):
    """The session cannot begin; `code` is the event that tells why."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


def backend(state: State, request: TransferRequest) -> Literal["live", "nbd", "file"]:
    """What serves the data: the VM's own QEMU in a live backup, the file when no raw view of it was asked for."""
    backup = state.backups.get(request.backup_id)
    if backup is not None:
        return "live" if backup.kind == "live" else "nbd"
    return "nbd" if request.format == "raw" else "file"


async def start(context: Context, transfer: ImageTransfer, *, preferred_host: str) -> None:
    """Choose the host, start what serves the data and put the ticket; raises `SessionError`.

    The ticket's id is recorded before anything is started, so that a session that failed half-way is cleaned up.
    """
    host = _choose_host(context, transfer, preferred_host)
    transfer.host_id = host.id
    transfer.size = _size(context, transfer)
    transfer.ticket_id = context.state.new_id()
    url = await _serve(context, transfer, host)
    ticket = _ticket(context, transfer, url)
    try:
        await host.add_ticket(ticket)
    except HostError as error:
        raise SessionError(audit.NO_TICKET, str(error)) from error
    if not await proxy.add(context, ticket, url=image_url(host.address, host.imageio_port, transfer)):
        audit.tell(context, transfer, audit.NO_PROXY)
    transfer.expires = context.clock.seconds() + context.state.settings.ticket_lifetime


async def status(context: Context, transfer: ImageTransfer) -> Mapping[str, Any] | None:
    """The daemon's view of the ticket; None when it does not know it, or cannot be asked."""
    try:
        return await context.hosts[transfer.host_id].get_ticket(transfer.ticket_id)
    except HostError as error:
        log.info("Ticket %s of transfer %s cannot be read: %s", transfer.ticket_id, transfer.id, error)
        return None


async def renew(context: Context, transfer: ImageTransfer) -> bool:
    """Extend the ticket's life; False when the daemon does not do it."""
    lifetime = context.state.settings.ticket_lifetime
    try:
        await context.hosts[transfer.host_id].extend_ticket(transfer.ticket_id, lifetime)
    except HostError as error:
        log.info("Ticket %s of transfer %s was not extended: %s", transfer.ticket_id, transfer.id, error)
        return False
    transfer.expires = context.clock.seconds() + lifetime
    await proxy.extend(context, transfer, lifetime)
    return True


async def stop(context: Context, transfer: ImageTransfer) -> bool:
    """Take the ticket away and stop the server; False when clients are still at it, to be tried again."""
    if not transfer.ticket_id:
        return True
    host = context.hosts[transfer.host_id]
    try:
        await host.remove_ticket(transfer.ticket_id)
    except HostError as error:
        log.info("Ticket %s of transfer %s was not removed: %s", transfer.ticket_id, transfer.id, error)
        return False
    await proxy.remove(context, transfer)
    if transfer.backend == "nbd":
        try:
            await host.stop_nbd_server(transfer.id)
        except HostError as error:
            log.info("The NBD server of transfer %s was not stopped: %s", transfer.id, error)
    transfer.ticket_id = ""
    return True


def image_url(address: str, port: int, transfer: ImageTransfer) -> str:
    """Where a daemon serves the data of a transfer."""
    name = f"[{address}]" if ":" in address else address
    return f"https://{name}:{port}/images/{transfer.ticket_id}"


def volume(context: Context, transfer: ImageTransfer) -> Path:
    """The volume that is transferred."""
    return context.volume_path(context.state.disks[transfer.disk_id], transfer.image_id)


def _frozen(context: Context, transfer: ImageTransfer) -> FrozenVolume:
    """Format and size of the volume that is transferred."""
    disk = context.state.disks[transfer.disk_id]
    found = volumes.find(context.state, disk, transfer.image_id or disk.image_id)
    if found is None:
        raise SessionError(audit.NO_SERVER, f"Disk {disk.id} has no image {transfer.image_id}.")
    return found.volume


def _choose_host(context: Context, transfer: ImageTransfer, preferred: str) -> Host:
    """The VM's host for a backup of a running VM, else the wanted one when it is up, else any that is up."""
    backup = context.state.backups.get(transfer.backup_id)
    vm = context.state.vms.get(backup.vm_id) if backup else None
    if vm is not None and vm.status != "down":
        if vm.host_id not in context.hosts:
            raise SessionError(audit.NO_HOST, f"VM {vm.name} runs on no host.")
        return context.hosts[vm.host_id]
    up = [host.id for host in context.state.hosts.values() if host.status == "up"]
    if not up:
        raise SessionError(audit.NO_HOST, "No host is up.")
    return context.hosts[preferred if preferred in up else up[0]]


async def _serve(context: Context, transfer: ImageTransfer, host: Host) -> str:
    disk = context.state.disks[transfer.disk_id]
    if transfer.backend == "file":
        return f"file://{volume(context, transfer)}"
    if transfer.backend == "live":
        backup = context.state.backups[transfer.backup_id]
        if disk.id not in backup.urls:
            raise SessionError(audit.NO_TICKET, f"Disk {disk.id} is not part of backup {backup.id}.")
        return backup.urls[disk.id]
    try:
        return await host.start_nbd_server(
            transfer.id,
            volume(context, transfer),
            format_on_host(_frozen(context, transfer).format),
            read_only=transfer.direction == "download",
            bitmap=_bitmap(context, transfer),
            discard=disk.sparse,
            shallow=transfer.shallow,
        )
    except HostError as error:
        raise SessionError(audit.NO_SERVER, str(error)) from error


def _bitmap(context: Context, transfer: ImageTransfer) -> str | None:
    backup = context.state.backups.get(transfer.backup_id)
    incremental = backup is not None and backup.modes.get(transfer.disk_id) == "incremental"
    if backup is None or not incremental or _frozen(context, transfer).format != "cow":
        return None
    return backup.from_checkpoint_id


def _ticket(context: Context, transfer: ImageTransfer, url: str) -> dict[str, Any]:
    disk = context.state.disks[transfer.disk_id]
    backup = context.state.backups.get(transfer.backup_id)
    dirty = transfer.direction == "download" and backup is not None and backup.modes.get(disk.id) == "incremental"
    return {
        "uuid": transfer.ticket_id,
        "timeout": context.state.settings.ticket_lifetime,
        "inactivity_timeout": transfer.inactivity_timeout,
        "size": transfer.size,
        "url": url,
        "transfer_id": transfer.id,
        "filename": "",
        "sparse": disk.sparse,
        "dirty": dirty,
        "ops": ["read" if transfer.direction == "download" else "write"],
    }


def _size(context: Context, transfer: ImageTransfer) -> int:
    """Bytes that clients may reach: the virtual size over NBD and for raw files, else what a qcow2 file takes."""
    disk = context.state.disks[transfer.disk_id]
    frozen = _frozen(context, transfer)
    if transfer.backend != "file" or frozen.format == "raw":
        return frozen.size
    if transfer.direction == "upload":
        return math.ceil(disk.provisioned_size * _QCOW2_OVERHEAD) + _QCOW2_HEADER
    try:
        return volume(context, transfer).stat().st_size
    except OSError as error:
        raise SessionError(audit.NO_TICKET, f"The volume cannot be read: {error}") from error
