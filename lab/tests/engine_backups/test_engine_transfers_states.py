# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer goes through: orders, timers, lost tickets, and what is left of the disk."""

from __future__ import annotations

import dataclasses
import http.client
import ssl
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine import upkeep
from ovirtlab.engine.context import Proxy
from ovirtlab.engine.transfers import audit, commands
from ovirtlab.engine.transfers.rules import TransferRequest
from ovirtlab.faults import recovery
from ovirtlab.host.api import HostError
from ovirtlab.host.tickets import TicketClient

UPLOAD = types.ImageTransferDirection.UPLOAD
DOWNLOAD = types.ImageTransferDirection.DOWNLOAD


def refused(act: Any, status: int, text: str) -> None:
    with pytest.raises(sdk.Error) as caught:
        act()
    assert caught.value.code == status, str(caught.value)
    assert text in str(caught.value)


def add(world: Any, **fields: Any) -> types.ImageTransfer:
    fields.setdefault("direction", DOWNLOAD)
    fields.setdefault("format", types.DiskFormat.RAW)
    return world.system.image_transfers_service().add(types.ImageTransfer(**fields))


def connect(world: Any, transfer: types.ImageTransfer) -> tuple[http.client.HTTPSConnection, str]:
    url = urlsplit(transfer.transfer_url)
    context = ssl.create_default_context(cafile=world.daemon.ca)
    return http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=20), url.path


def test_what_is_told_of_a_transfer(world: Any) -> None:
    """The disk comes back as `image`; addresses are there only while there is a ticket."""
    disk = world.add_disk()
    transfer = world.start_transfer(
        disk=types.Disk(id=disk.id), host=types.Host(id=world.host.id), inactivity_timeout=77
    )
    ticket_id = world.state.transfers[transfer.id].ticket_id
    assert transfer.transfer_url == f"https://127.0.0.1:{world.daemon.port}/images/{ticket_id}"
    assert transfer.proxy_url == f"https://127.0.0.1:54323/images/{ticket_id}"
    assert transfer.image.id == disk.id
    assert transfer.host.id == world.host.id
    assert (transfer.disk, transfer.backup, transfer.snapshot) == (None, None, None)
    assert transfer.inactivity_timeout == 77
    assert transfer.timeout_policy.value == "legacy"
    assert transfer.format.value == "raw"
    assert transfer.direction.value == "download"
    ticket = world.ticket(transfer)
    assert ticket["url"] == f"nbd:unix:{world.run}/nbd/{transfer.id}.sock"
    known = {name: ticket[name] for name in ("size", "ops", "timeout", "inactivity_timeout", "transfer_id", "dirty")}
    assert known == {
        "size": disk.provisioned_size,
        "ops": ["read"],
        "timeout": 300,
        "inactivity_timeout": 77,
        "transfer_id": transfer.id,
        "dirty": False,
    }
    assert [t.id for t in world.system.image_transfers_service().list()] == [transfer.id]
    done = world.finalize_transfer(transfer)
    assert (done.transfer_url, done.proxy_url) == (None, None)
    assert world.codes() == [1031, 1032]
    assert not (world.run / "nbd" / f"{transfer.id}.sock").exists()


def test_requests_that_are_refused(world: Any) -> None:
    disk, plugged = world.add_disk(), world.add_disk()
    vm = world.add_vm(plugged)
    refused(lambda: add(world), 400, "required for add")
    refused(lambda: add(world, disk=types.Disk(id=world.state.new_id())), 400, "The specified disk does not exist.")
    refused(
        lambda: add(world, disk=types.Disk(id=plugged.id)),
        409,
        f"The disk {plugged.alias} is plugged to non-Down VMs: {vm.name}",
    )
    disk.status = "locked"
    refused(lambda: add(world, disk=types.Disk(id=disk.id)), 409, "The following disks are locked")
    disk.status = "illegal"
    refused(lambda: add(world, disk=types.Disk(id=disk.id)), 500, "ILLEGAL")
    disk.status = "ok"
    world.state.storage_domains[world.domain].status = "maintenance"
    refused(lambda: add(world, disk=types.Disk(id=disk.id)), 409, "The relevant Storage Domain's status is")
    world.state.storage_domains[world.domain].status = "active"
    with world.log_in("other@internal") as connection:
        service = connection.system_service().image_transfers_service()
        asked = types.ImageTransfer(disk=types.Disk(id=disk.id))
        refused(lambda: service.add(asked), 403, "not authorized")
    first = world.start_transfer(disk=types.Disk(id=disk.id))
    with world.log_in("other@internal") as connection:
        service = connection.system_service().image_transfers_service().image_transfer_service(first.id)
        refused(service.cancel, 403, "not authorized")
    refused(
        lambda: add(world, disk=types.Disk(id=disk.id), direction=UPLOAD),
        409,
        f"Cannot transfer Virtual Disk. Disk {disk.alias} is being transferred.",
    )
    refused(lambda: add(world, disk=types.Disk(id=disk.id)), 409, "The following disks are locked")  # a shared lock
    world.finalize_transfer(first)
    assert len(world.state.transfers) == 1


def test_transfers_of_a_backup_that_are_refused(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    asked = {"disk": types.Disk(id=disk.id), "backup": types.Backup(id=backup.id)}
    refused(
        lambda: add(world, **asked, format=types.DiskFormat.COW),
        400,
        "The specified format is not applicable for VM backup.",
    )
    unknown = types.Backup(id=world.state.new_id())
    refused(
        lambda: add(world, disk=types.Disk(id=disk.id), backup=unknown), 400, "The specified VM backup does not exist."
    )
    world.finalize_backup(vm, backup)
    refused(lambda: add(world, **asked), 409, "The VM backup is not in READY phase, backup phase is SUCCEEDED.")


def test_orders_out_of_place(world: Any) -> None:
    """Unknown transfers and finished ones take any order; a download is not paused."""
    unknown = world.transfer(world.state.new_id())
    for order in (unknown.finalize, unknown.cancel, unknown.extend, unknown.pause, unknown.resume):
        order()
    refused(unknown.get, 404, "")
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id))
    service = world.transfer(transfer.id)
    refused(service.pause, 400, "Cannot pause image download")
    refused(service.resume, 409, "Cannot resume image transfer as it's not in a paused state.")
    service.extend()
    world.finalize_transfer(transfer)
    service.cancel()
    service.finalize()
    assert service.get().phase.value == "finished_success"
    assert disk.id in world.state.disks


def test_pause_and_resume_of_an_upload(world: Any) -> None:
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), direction=UPLOAD)
    service = world.transfer(transfer.id)
    service.pause()
    assert service.get().phase.value == "paused_user"
    world.until(lambda: 1073 in world.codes())
    service.resume()
    world.wait_transfer(transfer.id, "transferring")
    assert 1074 in world.codes()
    world.finalize_transfer(transfer)


def test_cancel(world: Any) -> None:
    """A cancelled download leaves its disk, a cancelled upload takes it away, even one that was there before."""
    source, target = world.add_disk(), world.add_disk()
    vm = world.add_vm(target, up=False)
    download = world.start_transfer(disk=types.Disk(id=source.id))
    upload = world.start_transfer(disk=types.Disk(id=target.id), direction=UPLOAD)
    for transfer in (download, upload):
        world.transfer(transfer.id).cancel()
    for transfer in (download, upload):
        assert world.wait_transfer(transfer.id, "").phase.value == "finished_failure"
    assert source.status == "ok"
    assert target.id not in world.state.disks
    assert not vm.attachments
    assert not target.path.exists()
    assert world.codes().count(1033) == 2


def test_cancel_takes_its_time(world: Any) -> None:
    """Poll by poll: the disk of an upload is illegal while its transfer is `finished_cleanup`, which is no end yet."""
    target = world.add_disk()
    upload = world.start_transfer(disk=types.Disk(id=target.id), direction=UPLOAD)
    world.state.settings.poll_first = 10
    world.transfer(upload.id).cancel()
    seen = []

    def ended() -> bool:
        phase = world.transfer(upload.id).get().phase.value
        disk = world.state.disks.get(target.id)
        now = (phase, disk.status if disk else "")
        if now not in seen:
            seen.append(now)
        return now[0] == "finished_failure"

    world.until(ended)
    cleanup = [status for phase, status in seen if phase == "finished_cleanup"]
    assert cleanup[0] == "illegal"
    assert set(cleanup) <= {"illegal", "locked", ""}  # locked while it is removed, and gone just before the end
    assert seen[-1] == ("finished_failure", "")


def test_what_is_held_is_free_one_poll_after_the_disk(world: Any) -> None:
    """The disk is ok again while the transfer is still `finalizing_success` and holds its locks."""
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), direction=UPLOAD)
    world.state.settings.poll_first = 20
    world.transfer(transfer.id).finalize()
    world.until(lambda: disk.status == "ok")
    assert world.transfer(transfer.id).get().phase.value == "finalizing_success"
    refused(lambda: add(world, disk=types.Disk(id=disk.id)), 409, f"Disk {disk.alias} is being transferred.")
    world.wait_transfer(transfer.id, "finished_success")


def test_a_session_that_does_not_stop(world: Any) -> None:
    """A transfer that is given up is over all the same; its ticket and the lock stay until faults are cleared."""
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), inactivity_timeout=1)
    world.host.broken = frozenset({"remove_ticket"})
    assert world.wait_transfer(transfer.id, "").phase.value == "finished_failure"
    assert disk.status == "locked"
    assert world.ticket(transfer)
    world.host.broken = frozenset()
    world.call(recovery.stop_sessions, world.context)
    assert disk.status == "ok"
    with pytest.raises(HostError):
        world.ticket(transfer)


def test_inactivity(world: Any) -> None:
    """After the time-out, by policy: a download is cancelled, an upload paused, or as was asked."""
    cases = [
        (DOWNLOAD, "legacy", 1072, "finished_failure"),
        (UPLOAD, "legacy", 1071, "paused_system"),
        (DOWNLOAD, "pause", 1077, "paused_system"),
        (UPLOAD, "cancel", 1076, "finished_failure"),
    ]
    begun = []
    for direction, policy, code, end in cases:
        disk = world.add_disk()
        asked = types.ImageTransferTimeoutPolicy(policy)
        transfer = world.start_transfer(
            disk=types.Disk(id=disk.id), direction=direction, timeout_policy=asked, inactivity_timeout=1
        )
        begun.append((transfer, disk, code, end))
    for transfer, disk, code, end in begun:
        assert world.wait_transfer(transfer.id, end).phase.value == end
        assert code in world.codes()
        assert (disk.id in world.state.disks) == (code != 1076)


def test_traffic_keeps_a_transfer_alive_and_extend_does_not(world: Any) -> None:
    used, extended = world.add_disk(), world.add_disk()
    kept = world.start_transfer(disk=types.Disk(id=used.id), inactivity_timeout=2)
    lost = world.start_transfer(disk=types.Disk(id=extended.id), inactivity_timeout=2)
    connection, path = connect(world, kept)
    with closing(connection):
        deadline = time.monotonic() + 90
        while world.transfer(lost.id).get().phase.value == "transferring":
            assert time.monotonic() < deadline
            connection.request("OPTIONS", path)
            assert connection.getresponse().read()
            world.transfer(lost.id).extend()
            time.sleep(0.2)
        assert world.transfer(kept.id).get().phase.value == "transferring"
    world.finalize_transfer(kept)


def test_lost_tickets(world: Any) -> None:
    """A daemon that was started again knows no ticket: a download fails, an upload is paused."""
    source, target = world.add_disk(), world.add_disk()
    download = world.start_transfer(disk=types.Disk(id=source.id))
    upload = world.start_transfer(disk=types.Disk(id=target.id), direction=UPLOAD)
    for transfer in (download, upload):
        world.call(world.host.remove_ticket, world.state.transfers[transfer.id].ticket_id)
    assert world.wait_transfer(download.id, "").phase.value == "finished_failure"
    assert world.wait_transfer(upload.id, "paused_system").phase.value == "paused_system"
    assert world.codes().count(1065) == 2
    assert source.status == "ok"
    again = world.start_transfer(disk=types.Disk(id=source.id))
    world.finalize_transfer(again)
    world.transfer(upload.id).cancel()
    world.wait_transfer(upload.id, "")
    assert target.id not in world.state.disks


def test_lost_ticket_within_a_backup(world: Any) -> None:
    """The backup goes on; a new transfer of the same disk works."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    asked = {"disk": types.Disk(id=disk.id), "backup": types.Backup(id=backup.id)}
    first = world.start_transfer(**asked)
    world.call(world.host.remove_ticket, world.state.transfers[first.id].ticket_id)
    assert world.wait_transfer(first.id, "").phase.value == "finished_failure"
    second = world.start_transfer(**asked)
    assert world.ticket(second)["url"] == f"nbd:unix:{world.run}/backup/{backup.id}:exportname=sda"
    world.finalize_transfer(second)
    world.finalize_backup(vm, backup)


def test_complete_download_ends_by_itself(world: Any) -> None:
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id))
    connection, path = connect(world, transfer)
    with closing(connection):
        connection.request("GET", path)
        assert len(connection.getresponse().read()) == disk.provisioned_size
    ended = world.wait_transfer(transfer.id, "finished_success")
    assert ended.phase.value == "finished_success"
    assert ended.transferred == disk.provisioned_size


def test_finalize_waits_for_running_requests(world: Any) -> None:
    """The daemon keeps the ticket while a request runs; the engine tries again until it ends."""
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), direction=UPLOAD)
    connection, path = connect(world, transfer)
    with closing(connection):
        connection.putrequest("PUT", path)
        connection.putheader("Content-Length", str(disk.provisioned_size))
        connection.endheaders()
        connection.send(b"x" * 65536)
        world.until(lambda: world.ticket(transfer)["active"])
        world.transfer(transfer.id).finalize()
        time.sleep(2.5)  # longer than the daemon waits (1 s) and the engine between two polls
        assert world.transfer(transfer.id).get().phase.value == "finalizing_success"
    assert world.wait_transfer(transfer.id, "").phase.value == "finished_success"


def test_renewal(world: Any) -> None:
    """The ticket is extended before it ends; when that fails twice the transfer is given up."""
    world.state.settings.ticket_refresh_allowance = 299
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id))
    before = world.ticket(transfer)["expires"]
    world.until(lambda: world.ticket(transfer)["expires"] > before)
    world.host.broken = frozenset({"extend_ticket"})
    assert world.wait_transfer(transfer.id, "").phase.value == "finished_failure"
    assert 1064 in world.codes()


def test_the_first_answer_has_the_addresses(world: Any) -> None:
    """The engine has set up the session by then, and there are clients that never ask again."""
    disk = world.add_disk()
    transfer = add(world, disk=types.Disk(id=disk.id))
    assert transfer.phase.value == "transferring"
    assert transfer.transfer_url.endswith(world.state.transfers[transfer.id].ticket_id)


@pytest.mark.parametrize(("verb", "code"), [("start_nbd_server", 1068), ("add_ticket", 1069)])
def test_session_that_cannot_start(world: Any, verb: str, code: int) -> None:
    """The order fails with no word of why, and its transfer is paused or comes to its end."""
    world.host.broken = frozenset({verb})
    source, target = world.add_disk(), world.add_disk()
    download = world.start_broken_transfer(disk=types.Disk(id=source.id))
    upload = world.start_broken_transfer(disk=types.Disk(id=target.id), direction=UPLOAD)
    assert world.codes()[:2] == [code, 1031]
    assert world.wait_transfer(download.id, "").phase.value == "finished_failure"
    assert world.wait_transfer(upload.id, "paused_system").phase.value == "paused_system"
    assert world.codes().count(code) == 2
    assert source.status == "ok"
    assert not list((world.run / "nbd").glob(f"{download.id}*"))


def test_no_host_is_up(world: Any) -> None:
    disk = world.add_disk()
    world.state.hosts[world.host.id].status = "maintenance"
    transfer = world.start_broken_transfer(disk=types.Disk(id=disk.id))
    assert world.wait_transfer(transfer.id, "").phase.value == "finished_failure"
    assert 1067 in world.codes()
    assert disk.status == "ok"


def test_missing_bitmap_of_a_cold_backup(world: Any) -> None:
    """The engine does not look at bitmaps of a VM that is down: only the transfer fails."""
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    full = world.finalize_backup(vm, world.start_backup(vm, disk))
    world.call(world.host.remove_bitmap, disk.path, full.to_checkpoint_id)
    second = world.start_backup(vm, disk, from_checkpoint_id=full.to_checkpoint_id)
    assert second.phase.value == "ready"
    transfer = world.start_broken_transfer(disk=types.Disk(id=disk.id), backup=types.Backup(id=second.id))
    assert world.wait_transfer(transfer.id, "").phase.value == "finished_failure"
    assert 1068 in world.codes()
    world.finalize_backup(vm, second)


def test_engine_restart_goes_on_with_transfers(world: Any) -> None:
    disk = world.add_disk()
    transfer = world.start_transfer(disk=types.Disk(id=disk.id))
    world.restart_engine()
    assert world.finalize_transfer(transfer).phase.value == "finished_success"
    assert disk.status == "ok"


def test_finished_transfers_vanish(world: Any) -> None:
    disk = world.add_disk()
    transfer = world.finalize_transfer(world.start_transfer(disk=types.Disk(id=disk.id)))
    upkeep.forget_finished(world.context)
    assert world.transfer(transfer.id).get()
    world.state.settings.succeeded_transfer_cleanup = 0
    upkeep.forget_finished(world.context)
    refused(world.transfer(transfer.id).get, 404, "")


def test_a_proxy_that_does_not_answer_is_an_event_and_no_more(world: Any) -> None:
    """Clients of the API do not need it; the ticket of the host is renewed and removed all the same."""
    nowhere = Proxy(port=54323, tickets=TicketClient(("127.0.0.1", 1)))
    context = dataclasses.replace(world.context, proxy=nowhere)
    request = TransferRequest(disk_id=world.add_disk().id, direction="download", format="raw")
    transfer = world.call(commands.start, context, request)
    world.wait_transfer(transfer.id, "transferring")
    assert audit.NO_PROXY in world.codes()
    world.transfer(transfer.id).finalize()
    world.wait_transfer(transfer.id, "finished_success")
