# SPDX-License-Identifier: GPL-3.0-or-later
"""Image transfers: tickets by which movers reach disks on the hosts."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

import ovirtsdk4 as sdk
from ovirtsdk4 import types

from overkeep.engine.api import Transfer, TransferRequest
from overkeep.engine.errors import EngineRefused, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.logs import fields

_log = logging.getLogger(__name__)
_PAUSED = ("paused_system", "paused_user")
_ALIVE = ("initializing", "transferring", "resuming", *_PAUSED)


class Transfers:
    """Opens, looks at and closes transfers; each act may be repeated."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def start(self, request: TransferRequest) -> str:
        """Open a transfer, or take up the one that an earlier call opened; return its id.

        The format is raw: the mover sees the guest's bytes, whatever the format of the volume. A download whose client
        died is cancelled by the Manager, lest the disk stays locked; an upload is paused, because cancelling it would
        delete its disk.
        """
        act, what = f"open access to disk {request.disk_id}", f"disk {request.disk_id}"
        with self._session.system(act, what=what) as system:
            service = system.image_transfers_service()
            known = service.list()
            ours = next((found for found in known if _is_alive(found) and _is_ours(found, request)), None)
            if ours is None:
                ours = _add(service, request, known={found.id for found in known})
                _log.info("transfer opened %s", fields(transfer=ours.id, disk=request.disk_id, upload=request.upload))
            elif request.upload and values.word(ours.phase) in _PAUSED:
                service.image_transfer_service(ours.id).resume()
                _log.info("transfer resumed %s", fields(transfer=ours.id, disk=request.disk_id))
            return str(ours.id)

    def show(self, transfer_id: str) -> Transfer:
        """Return a transfer; its phase is `gone` when the Manager knows it no longer."""
        try:
            with self._session.system(f"show transfer {transfer_id}", what=f"transfer {transfer_id}") as system:
                found = system.image_transfers_service().image_transfer_service(transfer_id).get()
        except NotFoundInEngine:
            return Transfer(id=transfer_id, disk_id="", phase="gone")
        return _transfer(found)

    def all(self) -> tuple[Transfer, ...]:
        """Return all transfers that the Manager still knows."""
        with self._session.system("list transfers", what="the transfers") as system:
            return tuple(_transfer(found) for found in system.image_transfers_service().list())

    def finalize(self, transfer_id: str) -> None:
        """Close a transfer whose data are all there; one that is closing or closed is success."""
        self._end(transfer_id, "finalize")

    def cancel(self, transfer_id: str) -> None:
        """Give a transfer up; of an upload the Manager then deletes the disk. One closed already is success."""
        self._end(transfer_id, "cancel")

    def _end(self, transfer_id: str, action: str) -> None:
        if _is_ended(self.show(transfer_id).phase):
            return
        try:
            with self._session.system(f"{action} transfer {transfer_id}", what=f"transfer {transfer_id}") as system:
                service = system.image_transfers_service().image_transfer_service(transfer_id)
                (service.finalize if action == "finalize" else service.cancel)()
        except EngineRefused:
            if not _is_ended(self.show(transfer_id).phase):
                raise
        _log.info("transfer ended %s", fields(transfer=transfer_id, action=action))


def _add(service: Any, request: TransferRequest, *, known: set[str]) -> Any:
    """Open a transfer; of one that got no session the order is refused without a word, and its events tell why."""
    try:
        return service.add(_body(request), headers={"Correlation-Id": request.disk_id})
    except sdk.Error:
        for found in service.list():
            if found.id not in known and _is_ours(found, request):
                return found
        raise


def _is_ended(phase: str) -> bool:
    return phase == "gone" or phase.startswith(("finalizing", "finished", "cancelled"))


def _body(request: TransferRequest) -> Any:
    return types.ImageTransfer(
        disk=types.Disk(id=request.disk_id),
        backup=types.Backup(id=request.backup_id) if request.backup_id else None,
        host=types.Host(id=request.host_id) if request.host_id else None,
        direction=_direction(request),
        format=types.DiskFormat.RAW,
        timeout_policy=_policy(request),
        inactivity_timeout=request.inactivity_timeout,
    )


def _direction(request: TransferRequest) -> Any:
    return types.ImageTransferDirection.UPLOAD if request.upload else types.ImageTransferDirection.DOWNLOAD


def _policy(request: TransferRequest) -> Any:
    return types.ImageTransferTimeoutPolicy.PAUSE if request.upload else types.ImageTransferTimeoutPolicy.CANCEL


def _is_alive(found: Any) -> bool:
    return values.word(found.phase) in _ALIVE


def _is_ours(found: Any, request: TransferRequest) -> bool:
    """Tell our own transfer from another client's: the Manager keeps no mark, but it tells how it was asked for."""
    return (
        _disk_id(found) == request.disk_id
        and found.direction == _direction(request)
        and found.timeout_policy in (None, _policy(request))
        and found.inactivity_timeout == request.inactivity_timeout
    )


def _transfer(found: Any) -> Transfer:
    phase = values.word(found.phase) or "unknown"
    url = found.transfer_url if phase == "transferring" else None
    return Transfer(
        id=found.id,
        disk_id=_disk_id(found),
        phase=phase,
        host_id=values.link_id(found.host),
        ticket=urlsplit(url).path.rpartition("/")[2] if url else "",
    )


def _disk_id(found: Any) -> str:
    """The disk is named as `image`; `disk` is not given back."""
    return values.link_id(found.image) or values.link_id(found.disk)
