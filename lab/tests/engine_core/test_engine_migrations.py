# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations as clients see them: their status, events and jobs, and everything that stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types


def service(lab: Any, system: Any, name: str = "web") -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


def up_at(lab: Any, service: Any, number: int) -> None:
    """Wait until the VM is up at a host."""
    lab.wait(lambda: service.get().status == types.VmStatus.UP)
    assert service.get().host.id == lab.hosts[number].id


def host(lab: Any, system: Any, number: int) -> Any:
    return system.hosts_service().host_service(lab.hosts[number].id)


@contextmanager
def held(lab: Any, number: int = 0) -> Iterator[None]:
    """VMs that leave a host are on their way until the end of the block."""

    async def bar() -> None:
        lab.hosts[number].way_out.clear()

    async def lift() -> None:
        lab.hosts[number].way_out.set()

    lab.run(bar())
    try:
        yield
    finally:
        lab.run(lift())


@contextmanager
def refused(text: str, code: int = 409) -> Iterator[None]:
    with pytest.raises(sdk.Error, match=text) as error:
        yield
    assert error.value.code == code


def events(lab: Any, code: int) -> list[str]:
    return [event.description for event in lab.engine.state.events if event.code == code]


def test_a_vm_moves_to_the_host_that_is_named(lab: Any, system: Any) -> None:
    web, jobs = service(lab, system), system.jobs_service()
    with held(lab):
        web.migrate(host=types.Host(name="host2"))
        shown = web.get()
        assert (shown.status, shown.host.id) == (types.VmStatus.MIGRATING, lab.hosts[0].id)
        progress = {item.name: item.values[0].datum for item in web.statistics_service().list()}
        lab.wait(lambda: lab.engine.state.vms[lab.vm_id("web")].migration_progress == 50)
        progress = {item.name: item.values[0].datum for item in web.statistics_service().list()}
        assert progress["migration.progress"] == 50
        summary = host(lab, system, 0).get().summary
        assert (summary.active, summary.migrating) == (1, 1)
        running = next(job for job in jobs.list() if job.description == "Migrating VM web to Host host2")
        assert running.status == types.JobStatus.STARTED
    up_at(lab, web, 1)
    lab.wait(lambda: jobs.job_service(running.id).get().status == types.JobStatus.FINISHED)
    assert lab.hosts[0].machines == {}
    assert list(lab.hosts[1].machines) == [lab.vm_id("web")]
    started, done = events(lab, 62), events(lab, 63)
    assert started == ["Migration started (VM: web, Source: host1, Destination: host2, User: admin@internal-authz). "]
    assert done[0].startswith("Migration completed (VM: web, Source: host1, Destination: host2, Duration: ")
    assert done[0].endswith("Actual downtime: 1ms)")


def test_without_a_host_another_one_is_chosen(lab: Any, system: Any) -> None:
    web = service(lab, system)
    web.migrate()
    up_at(lab, web, 1)
    web.migrate(cluster=types.Cluster(name="Default"))
    up_at(lab, web, 0)


def test_a_vm_that_has_moved_is_stopped_and_changed_where_it_is(lab: Any, system: Any) -> None:
    web = service(lab, system)
    web.migrate()
    up_at(lab, web, 1)
    extra = system.disks_service().disk_service(lab.disk_id("db_system"))
    service(lab, system, "db").disk_attachments_service().attachment_service(extra.get().id).remove()
    attachments = web.disk_attachments_service()
    attachments.add(
        types.DiskAttachment(disk=types.Disk(id=extra.get().id), interface=types.DiskInterface.VIRTIO, active=True)
    )
    assert len(lab.hosts[1].machines[lab.vm_id("web")].disks) == 3
    web.stop()
    assert lab.hosts[1].machines == {}


def test_a_cancelled_migration_leaves_the_vm_where_it_was(lab: Any, system: Any) -> None:
    web = service(lab, system)
    with refused("Cannot cancel migration for non migrating VM"):
        web.cancel_migration()
    with held(lab):
        web.migrate()
        lab.wait(lambda: lab.engine.state.vms[lab.vm_id("web")].migration_progress == 50)
        web.cancel_migration()
        up_at(lab, web, 0)
    assert lab.hosts[1].machines == {}
    assert events(lab, 161) == ["Migration cancelled (VM: web, Source: host1, User: admin@internal-authz)."]
    assert not {63, 64, 65, 120, 128} & set(lab.codes())
    web.migrate()
    up_at(lab, web, 1)


def broken(lab: Any, number: int, text: str) -> None:
    """Let a host take no VM over."""

    async def fail(*args: object, **kwargs: object) -> None:
        from ovirtlab.host.api import HostError

        raise HostError(text)

    lab.hosts[number].take_over_vm = fail


def test_a_failed_migration_to_a_host_is_not_tried_elsewhere(lab: Any, system: Any) -> None:
    broken(lab, 1, "no way")
    web = service(lab, system)
    web.migrate(host=types.Host(id=lab.hosts[1].id))
    lab.wait(lambda: 120 in lab.codes())
    up_at(lab, web, 0)
    assert events(lab, 120) == [
        "Migration failed due to an Error: no way (VM: web, Source: host1, Destination: host2)."
    ]


def test_a_failed_migration_to_any_host_ends_when_there_is_no_other(lab: Any, system: Any) -> None:
    broken(lab, 1, "no way")
    web = service(lab, system)
    web.migrate()
    lab.wait(lambda: 65 in lab.codes())
    up_at(lab, web, 0)
    assert events(lab, 166) == ["No available host was found to migrate VM web to."]
    assert events(lab, 65) == ["Migration failed due to an Error: no way (VM: web, Source: host1)."]


def test_a_vm_that_dies_on_the_way_is_down(lab: Any, system: Any) -> None:
    web, vm_id = service(lab, system), lab.vm_id("web")

    async def die() -> None:
        lab.hosts[0].change(vm_id, "down", "killed by signal 9")

    with held(lab):
        web.migrate()
        lab.wait(lambda: lab.engine.state.vms[vm_id].migration_progress == 50)
        lab.run(die())
    lab.wait(lambda: 64 in lab.codes())
    assert web.get().status == types.VmStatus.DOWN
    assert 119 in lab.codes()
    assert lab.hosts[1].machines == {}
    web.start()
    lab.wait(lambda: web.get().status == types.VmStatus.UP)


def test_a_vm_is_stopped_on_the_way(lab: Any, system: Any) -> None:
    web, vm_id = service(lab, system), lab.vm_id("web")
    with held(lab):
        web.migrate()
        lab.wait(lambda: lab.engine.state.vms[vm_id].migration_progress == 50)
        web.stop()
    assert web.get().status == types.VmStatus.DOWN
    lab.wait(lambda: 64 in lab.codes())
    assert lab.hosts[0].machines == lab.hosts[1].machines == {}
    web.remove()
    lab.wait(lambda: vm_id not in lab.engine.state.vms)


def test_what_may_not_be_done_on_the_way(lab: Any, system: Any) -> None:
    web = service(lab, system)
    with held(lab):
        web.migrate()
        with refused("VM web is being migrated"):
            web.migrate()
        with refused("VM web is being migrated"):
            web.backups_service().add(
                types.Backup(disks=[types.Disk(id=lab.disk_id("web_system"))]), query={"legacy": "true"}
            )
        with refused("VM web is being migrated"):
            web.snapshots_service().add(types.Snapshot(description="x", persist_memorystate=False))
        with refused("Cannot run VM. VM web is being migrated"):
            web.start()
        with refused("VM web is being migrated"):
            web.remove()
    up_at(lab, web, 1)


def migrate(lab: Any, system: Any, **how: Any) -> None:
    service(lab, system).migrate(**how)


def test_migrations_that_are_refused(lab: Any, system: Any) -> None:
    web, state = service(lab, system), lab.engine.state
    record, disk = state.vms[lab.vm_id("web")], state.disks[lab.disk_id("web_data")]
    with refused("VM is not running"):
        service(lab, system, "db").migrate()
    with refused("host1 did not satisfy internal filter Migration because it currently hosts the VM"):
        web.migrate(host=types.Host(name="host1"))
    with refused("Invalid Host Id", code=400):
        web.migrate(host=types.Host(id=state.new_id()))
    with refused("Cluster does not exist", code=400):
        web.migrate(cluster=types.Cluster(id=state.new_id()))
    disk.status = "locked"
    with refused("The following disks are locked: web_data. Please try again in a few minutes"):
        web.migrate()
    disk.status = "ok"
    record.status, record.status_detail = "paused", "io-error"
    with refused("Migrating a VM in paused status due to I/O error is not supported", code=400):
        web.migrate()
    record.status, record.status_detail = "up", ""
    state.hosts[lab.hosts[1].id].status = "maintenance"
    with refused("Operation can be performed only when Host status is Up"):
        web.migrate(host=types.Host(name="host2"))
    with refused("host1 did not satisfy internal filter Migration"):
        web.migrate()
    assert record.status == "up"


def test_a_vm_that_is_backed_up_stays(lab: Any, system: Any) -> None:
    web = service(lab, system)
    backups = web.backups_service()
    backup = backups.backup_service(
        backups.add(types.Backup(disks=[types.Disk(id=lab.disk_id("web_system"))]), query={"legacy": "true"}).id
    )
    with refused("The VM is during a backup operation"):
        web.migrate()
    lab.wait(lambda: backup.get().phase == types.BackupPhase.READY)
    backup.finalize()
    lab.wait(lambda: backup.get().phase == types.BackupPhase.SUCCEEDED)
    web.migrate()
    up_at(lab, web, 1)


def test_where_a_vm_may_go(lab: Any, system: Any) -> None:
    web = service(lab, system)
    policy = types.VmPlacementPolicy
    web.update(types.Vm(placement_policy=policy(affinity=types.VmAffinity.PINNED)))
    with refused("VM is pinned to Host"):
        web.migrate(force=True)
    web.update(types.Vm(placement_policy=policy(affinity=types.VmAffinity.USER_MIGRATABLE)))
    with refused("user did not specify the force-migration flag"):
        web.migrate()
    only = policy(affinity=types.VmAffinity.MIGRATABLE, hosts=[types.Host(id=lab.hosts[0].id)])
    web.update(types.Vm(placement_policy=only))
    with refused("host2 did not satisfy internal filter PinToHost because the host is not present in the pinning list"):
        web.migrate()
    free = policy(affinity=types.VmAffinity.USER_MIGRATABLE, hosts=[])
    web.update(types.Vm(placement_policy=free))
    web.migrate(force=True)
    up_at(lab, web, 1)


def test_to_another_cluster(lab: Any, system: Any) -> None:
    clusters = system.clusters_service()
    (center,) = lab.engine.state.data_centers
    other = clusters.add(types.Cluster(name="other", data_center=types.DataCenter(id=center)))
    lab.engine.state.hosts[lab.hosts[1].id].cluster_id = other.id
    web = service(lab, system)
    with refused("There are no hosts to use. Check that the cluster contains at least one host in Up state"):
        web.migrate(host=types.Host(name="host2"))
    web.migrate(host=types.Host(name="host2"), cluster=types.Cluster(id=other.id))
    up_at(lab, web, 1)
    assert web.get().cluster.id == other.id


def test_a_clusters_bandwidth_limits_the_migration(lab: Any, system: Any) -> None:
    given: list[int] = []
    send = lab.hosts[0].send_vm

    async def watched(vm_id: str, uri: str, *, limits: Any, report: Any) -> Any:
        given.append(limits.bandwidth)
        return await send(vm_id, uri, limits=limits, report=report)

    lab.hosts[0].send_vm = watched
    cluster = system.clusters_service().cluster_service(next(iter(lab.engine.state.clusters)))
    method = types.MigrationBandwidthAssignmentMethod
    assert cluster.get().migration.bandwidth.assignment_method == method.AUTO
    limit = types.MigrationBandwidth(assignment_method=method.CUSTOM, custom_value=8)
    shown = cluster.update(types.Cluster(migration=types.MigrationOptions(bandwidth=limit)))
    assert shown.migration.bandwidth.custom_value == 8
    web = service(lab, system)
    web.migrate()
    up_at(lab, web, 1)
    assert given == [1_000_000]


def test_a_host_in_maintenance_is_left_by_its_vms(lab: Any, system: Any) -> None:
    first, web = host(lab, system, 0), service(lab, system)
    with held(lab):
        first.deactivate()
        assert first.get().status == types.HostStatus.PREPARING_FOR_MAINTENANCE
        assert web.get().status == types.VmStatus.MIGRATING
    lab.wait(lambda: first.get().status == types.HostStatus.MAINTENANCE)
    up_at(lab, web, 1)
    assert events(lab, 67) == [
        "Migration initiated by system (VM: web, Source: host1, Destination: host2, "
        "Reason: Host preparing for maintenance)."
    ]
    with refused("Host is already in Maintenance mode"):
        first.deactivate()


def test_a_host_that_a_vm_cannot_leave_does_not_reach_maintenance(lab: Any, system: Any) -> None:
    first, web = host(lab, system, 0), service(lab, system)
    broken(lab, 1, "no way")
    first.deactivate()
    lab.wait(lambda: 1111 in lab.codes())
    assert first.get().status == types.HostStatus.PREPARING_FOR_MAINTENANCE
    up_at(lab, web, 0)
    web.stop()
    lab.wait(lambda: first.get().status == types.HostStatus.MAINTENANCE)


def test_maintenance_that_is_refused(lab: Any, system: Any) -> None:
    first, web = host(lab, system, 0), service(lab, system)
    web.update(types.Vm(placement_policy=types.VmPlacementPolicy(affinity=types.VmAffinity.PINNED)))
    with refused("The non-migratable VMs are: web"):
        first.deactivate()
    web.update(types.Vm(placement_policy=types.VmPlacementPolicy(affinity=types.VmAffinity.MIGRATABLE)))
    host(lab, system, 1).deactivate()
    lab.wait(lambda: host(lab, system, 1).get().status == types.HostStatus.MAINTENANCE)
    with refused("Please ensure that the following Clusters have at least one Host in UP state: Default"):
        first.deactivate()


def test_a_transfer_keeps_its_host_out_of_maintenance(lab: Any, system: Any) -> None:
    second, transfers = host(lab, system, 1), system.image_transfers_service()
    wanted = types.ImageTransfer(
        disk=types.Disk(id=lab.disk_id("db_system")),
        direction=types.ImageTransferDirection.DOWNLOAD,
        host=types.Host(id=lab.hosts[1].id),
        format=types.DiskFormat.RAW,
    )
    transfer = transfers.image_transfer_service(transfers.add(wanted).id)
    lab.wait(lambda: transfer.get().phase == types.ImageTransferPhase.TRANSFERRING)
    second.deactivate()
    before = lab.engine.context.clock.seconds()
    lab.wait(lambda: lab.engine.context.clock.seconds() > before + 5)  # the engine has looked several times since
    assert second.get().status == types.HostStatus.PREPARING_FOR_MAINTENANCE
    transfer.finalize()
    lab.wait(lambda: second.get().status == types.HostStatus.MAINTENANCE)


def test_who_may_not_migrate(lab: Any, system: Any) -> None:
    """The owner of a VM has no right to say where it runs."""
    state = lab.engine.state
    from ovirtlab.engine.entities.people import Permission, User

    user = User(id=state.new_id(), name="joe", domain="internal", password="pw")
    state.users[user.id] = user
    role = next(role for role in state.roles.values() if role.name == "UserVmManager")
    permission = Permission(id=state.new_id(), user_id=user.id, role_id=role.id, on=("vm", lab.vm_id("web")))
    state.permissions[permission.id] = permission
    connection = lab.connect("joe@internal", "pw")
    with pytest.raises(sdk.AuthError):
        service(lab, connection.system_service()).migrate()
    connection.close()


@contextmanager
def restarted_on_the_way(lab: Any, web: Any) -> Iterator[None]:
    """The engine restarts while the VM is half on its way to another host, and stays there for the block."""
    with held(lab):
        web.migrate()
        lab.wait(lambda: lab.engine.state.vms[lab.vm_id("web")].migration_progress == 50)
        lab.run(lab.engine.restart())
        assert web.get().status == types.VmStatus.MIGRATING
        yield


def hosts_of(lab: Any, name: str = "web") -> list[str]:
    """The hosts that have the VM, by what they say themselves."""
    return [host.name for host in lab.hosts if lab.vm_id(name) in host.machines]


def test_a_migration_goes_on_over_a_restart_of_the_engine(lab: Any, system: Any) -> None:
    web = service(lab, system)
    with restarted_on_the_way(lab, web):
        pass
    up_at(lab, web, 1)
    assert hosts_of(lab) == ["host2"]
    lab.wait(lambda: 63 in lab.codes())
    web.migrate()
    up_at(lab, web, 0)


def test_a_migration_can_be_cancelled_after_a_restart_of_the_engine(lab: Any, system: Any) -> None:
    web = service(lab, system)
    with restarted_on_the_way(lab, web):
        web.cancel_migration()
        up_at(lab, web, 0)
    assert hosts_of(lab) == ["host1"]
    assert 63 not in lab.codes()
    web.migrate()
    up_at(lab, web, 1)


def test_a_migration_that_fails_after_a_restart_of_the_engine_leaves_the_vm_free(lab: Any, system: Any) -> None:
    web = service(lab, system)
    broken(lab, 1, "no way")
    with restarted_on_the_way(lab, web):
        pass
    lab.wait(lambda: 65 in lab.codes())
    up_at(lab, web, 0)
    assert hosts_of(lab) == ["host1"]
    with refused("There is no host that satisfies current scheduling constraints"):
        web.migrate(host=types.Host(name="host1"))  # where it is; nothing holds it
    web.stop()
    lab.wait(lambda: web.get().status == types.VmStatus.DOWN)


def test_a_vm_that_dies_on_the_way_after_a_restart_of_the_engine_is_down(lab: Any, system: Any) -> None:
    web, vm_id = service(lab, system), lab.vm_id("web")

    async def die() -> None:
        lab.hosts[0].change(vm_id, "down", "killed by signal 9")

    with restarted_on_the_way(lab, web):
        lab.run(die())
    lab.wait(lambda: web.get().status == types.VmStatus.DOWN)
    lab.wait(lambda: 64 in lab.codes())
    assert hosts_of(lab) == []
    web.start()
    lab.wait(lambda: web.get().status == types.VmStatus.UP)


def test_a_host_reaches_maintenance_over_a_restart_of_the_engine(lab: Any, system: Any) -> None:
    first, web = host(lab, system, 0), service(lab, system)
    with held(lab):
        first.deactivate()
        lab.wait(lambda: lab.engine.state.vms[lab.vm_id("web")].migration_progress == 50)
        lab.run(lab.engine.restart())
        assert first.get().status == types.HostStatus.PREPARING_FOR_MAINTENANCE
    lab.wait(lambda: first.get().status == types.HostStatus.MAINTENANCE)
    up_at(lab, web, 1)
