# SPDX-License-Identifier: GPL-3.0-or-later
"""What the adapter asks the Manager for and how it reads its answers, where a whole Manager is too well-behaved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from xml.etree.ElementTree import Element

import pytest

from overkeep.config import EngineConfig
from overkeep.engine.api import BackupRequest, DiskSpec, TransferRequest
from overkeep.engine.errors import (
    AmbiguousName,
    Busy,
    EngineRefused,
    EngineUnreachable,
    EventNumberTaken,
    NotReadyInTime,
    VmLocked,
)
from overkeep.engine.ovirt.engine import OvirtEngine
from overkeep.engine.ovirt.waits import Patience
from overkeep.model import markup
from overkeep.model.inventory import DiskFormat, VmStatus
from overkeep.units import GIB
from tests.clock import Clock

from .conftest import Answer, Recorded, Request


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(settings: EngineConfig, clock: Clock) -> Iterator[OvirtEngine]:
    with OvirtEngine(settings, patience=Patience(clock=clock, sleep=clock.sleep)) as engine:
        yield engine


def sent(recorded: Recorded, act: str) -> list[Element]:
    """The bodies of the requests of one kind, `POST /disks`."""
    method, _, path = act.partition(" ")
    wanted = f"/ovirt-engine/api{path}"
    return [markup.parse(r.body) for r in recorded.seen if r.method == method and r.path.partition("?")[0] == wanted]


VM = """<vm id="v1"><name>web</name><status>{status}</status><origin>{origin}</origin><custom_properties/>
<initialization><root_password>hidden</root_password></initialization>
<cluster id="c1"/><host id="h1"/><template id="t1"/></vm>"""
ATTACHMENTS = """<disk_attachments><disk_attachment id="d1"><bootable>true</bootable><interface>virtio</interface>
<active>true</active><disk id="d1"/></disk_attachment></disk_attachments>"""
DISK = """<disk id="d1"><name>web_Disk1</name><alias>web_Disk1</alias><provisioned_size>1024</provisioned_size>
<format>cow</format><backup>incremental</backup><sparse>true</sparse><status>{status}</status>
<description>{description}</description><storage_type>image</storage_type>
<storage_domains><storage_domain id="s1"/></storage_domains></disk>"""


@pytest.fixture
def inventory(recorded: Recorded) -> None:
    recorded.answers |= {
        "GET /vms/v1": Answer(VM.format(status="up", origin="ovirt")),
        "GET /vms/v1/diskattachments": Answer(ATTACHMENTS),
        "GET /disks/d1": Answer(DISK.format(status="ok", description="")),
        "GET /vms/v1/nics": Answer(
            '<nics><nic id="n1"><name>nic1</name><mac><address>56:6f</address></mac><interface>virtio</interface>'
            '<vnic_profile id="p1"/></nic></nics>'
        ),
        "GET /clusters": Answer('<clusters><cluster id="c1"><name>Default</name></cluster></clusters>'),
        "GET /clusters/c1": Answer('<cluster id="c1"><name>Default</name><data_center id="dc1"/></cluster>'),
        "GET /storagedomains": Answer(
            '<storage_domains><storage_domain id="s1"><name>data</name></storage_domain></storage_domains>'
        ),
        "GET /vnicprofiles": Answer(
            '<vnic_profiles><vnic_profile id="p1"><name>lan</name><network id="w1"/></vnic_profile>'
            '<vnic_profile id="p2"><name>lan</name><network id="w2"/></vnic_profile></vnic_profiles>'
        ),
        "GET /networks": Answer(
            '<networks><network id="w1"><name>lan</name><data_center id="dc1"/></network>'
            '<network id="w2"><name>lan</name><data_center id="dc2"/></network></networks>'
        ),
    }


def test_a_vm_whose_disks_are_only_linked(engine: OvirtEngine, inventory: None) -> None:
    vm = engine.vm("v1")
    assert (vm.cluster, vm.host_id, vm.hosted_engine) == ("Default", "h1", False)
    (disk,) = vm.disks
    assert (disk.name, disk.size, disk.format, disk.tracks_changes) == ("web_Disk1", 1024, DiskFormat.COW, True)
    assert (disk.storage_domain, disk.interface, disk.bootable) == ("data", "virtio", True)
    (nic,) = vm.nics
    assert (nic.mac, nic.vnic_profile, nic.network) == ("56:6f", "lan", "lan")


@pytest.mark.parametrize(
    ("status", "expected"),
    [("up", VmStatus.UP), ("down", VmStatus.DOWN), ("paused", VmStatus.PAUSED), ("image_locked", VmStatus.OTHER),
     ("of a later release", VmStatus.OTHER)],
)  # fmt: skip
def test_statuses(engine: OvirtEngine, recorded: Recorded, inventory: None, status: str, expected: VmStatus) -> None:
    recorded.answers["GET /vms/v1"] = Answer(VM.format(status=status, origin="ovirt"))
    assert engine.vm("v1").status is expected


def test_hosted_engine(engine: OvirtEngine, recorded: Recorded, inventory: None) -> None:
    recorded.answers["GET /vms/v1"] = Answer(VM.format(status="up", origin="managed_hosted_engine"))
    assert engine.vm("v1").hosted_engine


def test_networks_of_the_same_name_are_told_apart_by_data_center(engine: OvirtEngine, inventory: None) -> None:
    assert engine.vnic_profiles(cluster_id="c1") == {"lan/lan": "p1"}


def test_domains_that_are_not_up_or_hold_no_disks_are_left_out(
    engine: OvirtEngine, recorded: Recorded, inventory: None
) -> None:
    def domain(number: int, status: str, kind: str) -> str:
        return (
            f'<storage_domain id="s{number}"><name>n{number}</name><status>{status}</status><type>{kind}</type>'
            "</storage_domain>"
        )

    listed = domain(1, "active", "data") + domain(2, "maintenance", "data") + domain(3, "active", "iso")
    recorded.answers["GET /datacenters/dc1/storagedomains"] = Answer(f"<storage_domains>{listed}</storage_domains>")
    assert engine.storage_domains(cluster_id="c1") == {"n1": "s1"}


def test_two_vms_of_one_name(engine: OvirtEngine, recorded: Recorded) -> None:
    listed = '<vm id="v1"><name>web</name></vm><vm id="v2"><name>web</name></vm><vm id="v3"><name>web2</name></vm>'
    recorded.answers["GET /vms"] = Answer(f"<vms>{listed}</vms>")
    with pytest.raises(AmbiguousName, match="v1, v2"):
        engine.find_vm("web")


def test_the_ovf_is_waited_for_at_most_a_minute(engine: OvirtEngine, inventory: None, clock: Clock) -> None:
    with pytest.raises(NotReadyInTime, match="locked"):
        engine.configuration("v1")
    assert 60 <= clock.now < 62


def test_a_document_says_what_could_not_be_had_and_holds_no_password(
    engine: OvirtEngine, recorded: Recorded, inventory: None, clock: Clock
) -> None:
    asked = 0

    def vm(request: Request) -> Answer:
        nonlocal asked
        plain = VM.format(status="up", origin="ovirt")
        if "all_content" not in request.path:
            return Answer(plain)
        asked += 1
        if asked < 3:
            return Answer(plain)
        kept = "<configuration><type>ovf</type><data>&lt;Envelope/&gt;</data></configuration>"
        return Answer(plain.replace("<initialization>", f"<initialization>{kept}"))

    recorded.answers["GET /vms/v1"] = vm
    recorded.answers["GET /vms/v1/tags"] = Answer("<tags><tag id='g1'><name>daily</name></tag></tags>")
    recorded.answers["GET /vms/v1/watchdogs"] = Answer("<fault/>", status=500)
    kept = engine.configuration("v1")
    assert kept.ovf == "<Envelope/>"
    assert clock.now == 2
    document = kept.document
    assert document["cluster"] == {"id": "c1", "name": "Default"}
    assert document["tags"] == ["daily"]
    assert document["disks"][0]["storage_domain"] == {"id": "s1", "name": "data"}  # type: ignore[index]
    assert document["nics"][0]["network"] == {"name": "lan"}  # type: ignore[index]
    assert {"watchdogs", "template", "permissions"} <= set(document["missing"])  # type: ignore[call-overload]
    assert "hidden" not in repr(document)


REQUEST = BackupRequest(
    id="b1", vm_id="v1", disk_ids=("d1", "d2"), from_checkpoint="cp1", description="x" * 2000, require_consistency=True
)


def test_how_a_backup_is_asked_for(engine: OvirtEngine, recorded: Recorded) -> None:
    recorded.answers["POST /vms/v1/backups"] = Answer(
        '<backup id="b1"><phase>initializing</phase></backup>', status=201
    )
    engine.start_backup(REQUEST)
    (body,) = sent(recorded, "POST /vms/v1/backups")
    assert markup.attribute(body, "id") == "b1"
    assert markup.text(body, "from_checkpoint_id") == "cp1"
    assert len(markup.text(body, "description")) == 1024
    disks = next(markup.children(body, "disks"))
    assert [markup.attribute(disk, "id") for disk in markup.children(disks, "disk")] == ["d1", "d2"]
    query = next(r.path for r in recorded.seen if r.method == "POST" and r.path.endswith("=true"))
    assert "legacy=true" in query
    assert "require_consistency=true" in query


def test_a_backup_whose_start_was_cut_off_is_found_again(engine: OvirtEngine, recorded: Recorded) -> None:
    def arrived(_: Request) -> Answer:
        recorded.answers["GET /vms/v1/backups/b1"] = Answer('<backup id="b1"><phase>starting</phase></backup>')
        words = "[Cannot backup VM. The VM is during a backup operation.]"
        return Answer(f"<fault><detail>{words}</detail></fault>", status=409)

    recorded.answers["POST /vms/v1/backups"] = arrived
    engine.start_backup(REQUEST)
    engine.start_backup(REQUEST)
    assert len(sent(recorded, "POST /vms/v1/backups")) == 1


@pytest.mark.parametrize("phase", ["initializing", "starting"])
def test_a_backup_that_is_beginning_is_not_finalized(engine: OvirtEngine, recorded: Recorded, phase: str) -> None:
    """The Manager would mark it as failed and might leave its disks locked."""
    recorded.answers["GET /vms/v1/backups/b1"] = Answer(f'<backup id="b1"><phase>{phase}</phase></backup>')
    with pytest.raises(Busy, match=phase):
        engine.finalize_backup("v1", "b1")
    assert not [r for r in recorded.seen if r.path.endswith("/finalize")]


def test_the_checkpoint_counts_only_when_the_backup_is_ready(engine: OvirtEngine, recorded: Recorded) -> None:
    backup = '<backup id="b1"><phase>{}</phase><to_checkpoint_id>cp2</to_checkpoint_id><host id="h1"/></backup>'
    recorded.answers["GET /vms/v1/backups/b1"] = Answer(backup.format("starting"))
    assert engine.backup("v1", "b1").checkpoint_id is None
    recorded.answers["GET /vms/v1/backups/b1"] = Answer(backup.format("ready"))
    recorded.answers["GET /vms/v1/backups/b1/disks"] = Answer(
        "<disks><disk id='d1'><backup_mode>incremental</backup_mode></disk><disk id='d2'/></disks>"
    )
    ready = engine.backup("v1", "b1")
    assert (ready.checkpoint_id, ready.host_id) == ("cp2", "h1")
    assert ready.modes == {"d1": "incremental", "d2": "full"}


def test_checkpoints_oldest_first_without_invalid_ones(engine: OvirtEngine, recorded: Recorded) -> None:
    def checkpoint(name: str, day: int, state: str = "created") -> str:
        date = f"2026-11-{day:02d}T10:00:00.000+01:00"
        return f'<checkpoint id="{name}"><creation_date>{date}</creation_date><state>{state}</state></checkpoint>'

    listed = checkpoint("new", 12) + checkpoint("bad", 11, "invalid") + checkpoint("old", 10)
    recorded.answers["GET /vms/v1/checkpoints"] = Answer(f"<checkpoints>{listed}</checkpoints>")
    assert engine.checkpoints("v1") == ("old", "new")


def transfer(phase: str = "transferring", direction: str = "download", policy: str = "cancel", **changes: str) -> str:
    disk, timeout = changes.get("disk", "d1"), changes.get("timeout", "3600")
    return (
        f'<image_transfer id="{changes.get("id", "t1")}"><phase>{phase}</phase><direction>{direction}</direction>'
        f"<timeout_policy>{policy}</timeout_policy><inactivity_timeout>{timeout}</inactivity_timeout>"
        "<transfer_url>https://h1:54322/images/9d6c-ticket</transfer_url>"
        f'<image id="{disk}"/><host id="h1"/></image_transfer>'
    )


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
def test_how_a_transfer_is_asked_for(engine: OvirtEngine, recorded: Recorded, upload: bool) -> None:
    recorded.answers["GET /imagetransfers"] = Answer("<image_transfers/>")
    recorded.answers["POST /imagetransfers"] = Answer(transfer("initializing"), status=201)
    request = TransferRequest(disk_id="d1", upload=upload, backup_id=None if upload else "b1", host_id="h2")
    assert engine.start_transfer(request) == "t1"
    (body,) = sent(recorded, "POST /imagetransfers")
    assert markup.text(body, "format") == "raw"
    assert markup.text(body, "direction") == ("upload" if upload else "download")
    assert markup.text(body, "timeout_policy") == ("pause" if upload else "cancel")
    assert markup.text(body, "inactivity_timeout") == "3600"
    links = {child.tag: markup.attribute(child, "id") for child in body if child.attrib}
    assert links == {"disk": "d1", "host": "h2"} | ({} if upload else {"backup": "b1"})


OTHERS = {
    "ended": transfer("finished_success"),
    "ending": transfer("finalizing_cleanup"),
    "of another disk": transfer(disk="d2"),
    "of the other direction": transfer(direction="upload", policy="pause"),
    "of another client": transfer(timeout="60"),
    "of another policy": transfer(policy="legacy"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_transfers_that_are_not_taken_up(engine: OvirtEngine, recorded: Recorded, case: str) -> None:
    recorded.answers["GET /imagetransfers"] = Answer(f"<image_transfers>{OTHERS[case]}</image_transfers>")
    recorded.answers["POST /imagetransfers"] = Answer(transfer(id="t2"), status=201)
    assert engine.start_transfer(TransferRequest(disk_id="d1", upload=False, backup_id="b1")) == "t2"


@pytest.mark.parametrize("phase", ["paused_system", "paused_user"])
def test_a_paused_upload_is_resumed(engine: OvirtEngine, recorded: Recorded, phase: str) -> None:
    listed = transfer(phase, direction="upload", policy="pause")
    recorded.answers["GET /imagetransfers"] = Answer(f"<image_transfers>{listed}</image_transfers>")
    recorded.answers["POST /imagetransfers/t1/resume"] = Answer("<action><status>complete</status></action>")
    assert engine.start_transfer(TransferRequest(disk_id="d1", upload=True)) == "t1"
    assert sent(recorded, "POST /imagetransfers/t1/resume")


def test_the_ticket_is_the_last_part_of_the_url(engine: OvirtEngine, recorded: Recorded) -> None:
    recorded.answers["GET /imagetransfers/t1"] = Answer(transfer())
    shown = engine.transfer("t1")
    assert (shown.ticket, shown.host_id, shown.disk_id) == ("9d6c-ticket", "h1", "d1")
    recorded.answers["GET /imagetransfers/t1"] = Answer(transfer("finalizing_success"))
    assert engine.transfer("t1").ticket == ""


def test_ending_a_transfer_that_has_ended_asks_for_nothing(engine: OvirtEngine, recorded: Recorded) -> None:
    for phase in ("finished_failure", "cancelled_system", "finalizing_success"):
        recorded.answers["GET /imagetransfers/t1"] = Answer(transfer(phase))
        engine.finalize_transfer("t1")
        engine.cancel_transfer("t1")
    assert not [r for r in recorded.seen if r.method == "POST" and "imagetransfers" in r.path]


DISKS = {  # storage, format, sparse, tracks -> sparse, initial size, backup
    "thin qcow2 on files": ("nfs", DiskFormat.COW, True, True, ("true", "", "incremental")),
    "thin qcow2 on blocks": ("iscsi", DiskFormat.COW, True, False, ("true", str(GIB), "none")),
    "thin raw on files": ("nfs", DiskFormat.RAW, True, False, ("true", "", "none")),
    "thin raw on blocks": ("fcp", DiskFormat.RAW, True, False, ("false", "", "none")),
    "preallocated qcow2 on blocks": ("fcp", DiskFormat.COW, False, True, ("false", "", "incremental")),
}


@pytest.mark.parametrize("case", DISKS)
def test_how_a_disk_is_asked_for(engine: OvirtEngine, recorded: Recorded, case: str) -> None:
    storage, fmt, sparse, tracks, expected = DISKS[case]
    recorded.answers["GET /storagedomains/s1"] = Answer(
        f'<storage_domain id="s1"><storage><type>{storage}</type></storage></storage_domain>'
    )

    def make(_: Request) -> Answer:
        recorded.answers["GET /disks/d1"] = Answer(DISK.format(status="ok", description="job 1"))
        return Answer(DISK.format(status="locked", description="job 1"), status=202)

    recorded.answers["POST /disks"] = make
    engine.create_disk(
        DiskSpec(
            id="d1",
            name="x",
            size=GIB,
            format=fmt,
            sparse=sparse,
            tracks_changes=tracks,
            storage_domain_id="s1",
            description="job 1",
        )
    )
    (body,) = sent(recorded, "POST /disks")
    assert markup.attribute(body, "id") == "d1"
    assert tuple(markup.text(body, name) for name in ("sparse", "initial_size", "backup")) == expected


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ("", EngineRefused),
        ("<event><origin>Overkeep</origin><custom_id>7</custom_id><description>backed up</description></event>", None),
        (
            "<event><origin>other</origin><custom_id>7</custom_id><description>backed up</description></event>",
            EngineRefused,
        ),
        (
            "<event><origin>Overkeep</origin><custom_id>7</custom_id><description>x</description></event>",
            EventNumberTaken,
        ),
    ],
)
def test_an_event_that_the_manager_has_already_is_not_written_twice(
    engine: OvirtEngine, recorded: Recorded, listed: str, error: type[Exception] | None
) -> None:
    recorded.answers["POST /events"] = Answer("<fault><detail>custom id is taken</detail></fault>", status=400)
    recorded.answers["GET /events"] = Answer(f"<events>{listed}</events>")
    with pytest.raises(error) if error else nullcontext():
        engine.post_event("normal", "backed up", number=7)
    [body] = sent(recorded, "POST /events")
    assert markup.text(body, "custom_id") == "7"


def test_what_the_manager_wrote_about_a_failure(engine: OvirtEngine, recorded: Recorded) -> None:
    def event(number: int, severity: str, text: str, more: str = "") -> str:
        return (
            f'<event id="{number}"><index>{number}</index><severity>{severity}</severity>'
            f"<description>{text}</description>{more}</event>"
        )

    listed = (
        event(5, "error", "Failed to back up.", "<correlation_id>b1</correlation_id>")
        + event(4, "normal", "Backup b1 started.")
        + event(3, "warning", "Backup b1 is odd.")
        + event(2, "error", "Other trouble.")
    )
    recorded.answers["GET /events"] = Answer(f"<events>{listed}</events>")
    assert engine.explain("b1") == "Backup b1 is odd. Failed to back up."
    assert engine.explain("b2") == ""


def test_deleting_a_checkpoint_of_a_locked_vm(engine: OvirtEngine, recorded: Recorded) -> None:
    words = "[Cannot delete VM checkpoint. The VM is during a backup operation.]"
    recorded.answers["DELETE /vms/v1/checkpoints/cp1"] = Answer(f"<fault><detail>{words}</detail></fault>", status=409)
    with pytest.raises(VmLocked):
        engine.delete_checkpoint("v1", "cp1")


def test_a_fault_of_the_moment_is_not_taken_for_gone(engine: OvirtEngine, recorded: Recorded) -> None:
    for path in ("/vms/v1/backups/b1", "/imagetransfers/t1", "/disks/d1"):
        recorded.answers[f"GET {path}"] = Answer("<html/>", status=502, kind="text/html")
    for look in (
        lambda: engine.backup("v1", "b1"),
        lambda: engine.transfer("t1"),
        lambda: engine.disk_status("d1"),
    ):
        with pytest.raises(EngineUnreachable):
            look()
