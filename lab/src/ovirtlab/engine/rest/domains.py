# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage domains changed, and those of a data centre put into maintenance, activated, and made the master."""

from __future__ import annotations

from ovirtlab.engine import jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.infrastructure import StorageDomain
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.rest.documents import Entity
from ovirtlab.engine.rest.inventory import data_center_of, domain_of, show_storage_domain
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.rest.named import check_name, describe
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of

routes = Routes()

_DEACTIVATE = "Cannot deactivate Storage"
_ACTIVATE = "Cannot activate Storage"
_SWITCH = "Cannot switch master storage domain"
_VMS_RUN = (
    'VMs in a state other than "Down" or "Suspended" were detected.\n-Please ensure all VMs associated with this '
    "Storage Domain are stopped and in the Down or Suspended state first."
)
_WAIT = "-Please wait until tasks will finish and try again."
_TRANSFERRING = ("transferring", "resuming", "finalizing_success", "finalizing_failure", "finalizing_cleanup")
_KEPT = (
    "backup", "critical_space_action_blocker", "discard_after_delete", "warning_low_space_indicator",
    "wipe_after_delete",
)  # fmt: skip


@routes.put("storagedomains/{domain}")
async def update_domain(call: Call) -> Entity:
    """Name, description, comment, and the thresholds, which the lab keeps without looking at them."""
    state, domain = call.context.state, domain_of(call)
    call.require("edit_storage_domain_configuration", ("storage_domain", domain.id))
    name = call.body.text("name")
    if name and name != domain.name:
        check_name(name, state.storage_domains.values(), "Cannot edit Storage")
        domain.name = name
    describe(call.body, domain)
    keep(state, domain.kept, call.body, _KEPT)
    return show_storage_domain(call, domain)


@routes.action("datacenters/{data_center}/storagedomains/{domain}/deactivate")
async def deactivate_domain(call: Call) -> Done:
    """Maintenance; refused while disks on it are transferred, busy, or plugged to VMs that run."""
    context, domain = call.context, _domain(call)
    call.require("manipulate_storage_domain", ("storage_domain", domain.id))
    if domain.status != "active":
        raise conflict(f"{_DEACTIVATE}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
    _check_idle(context, [disk for disk in context.state.disks.values() if disk.storage_domain_id == domain.id])
    domain.status = "preparing_for_maintenance"
    work = _change(context, domain, status="maintenance", what="Deactivating", cause=cause_of(call))
    context.background.undertake(work, name=f"deactivate domain {domain.name}")
    return Done()


@routes.action("datacenters/{data_center}/storagedomains/{domain}/activate")
async def activate_domain(call: Call) -> Done:
    context, domain = call.context, _domain(call)
    call.require("manipulate_storage_domain", ("storage_domain", domain.id))
    if domain.status != "maintenance":
        raise conflict(f"{_ACTIVATE}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
    domain.status = "activating"
    work = _change(context, domain, status="active", what="Activating", cause=cause_of(call))
    context.background.undertake(work, name=f"activate domain {domain.name}")
    return Done()


@routes.action("datacenters/{data_center}/setmaster")
async def set_master(call: Call) -> Done:
    """Make another active data domain the master."""
    state, data_center = call.context.state, data_center_of(call)
    call.require("edit_storage_pool_configuration", ("data_center", data_center.id))
    key = call.body.ref("storage_domain")
    if key is None:
        raise incomplete("Action", "storageDomain.id", "setMaster")
    domain = state.storage_domains.get(key)
    if domain is None or domain.data_center_id != data_center.id:
        raise NotFound(key)
    if domain.master:
        raise conflict(f"{_SWITCH}. The storage domain is already the master.")
    if domain.status != "active" or domain.type != "data":
        raise conflict(f"{_SWITCH}. The relevant Storage Domain's status is {domain.status.capitalize()}.")
    with jobs.job(state, f"Switching master storage domain to {domain.name}", cause=cause_of(call)):
        for other in state.storage_domains.values():
            if other.data_center_id == data_center.id:
                other.master = other is domain
    return Done()


async def _change(context: Context, domain: StorageDomain, *, status: str, what: str, cause: Cause) -> None:
    with jobs.job(context.state, f"{what} Storage Domain {domain.name}", cause=cause):
        await context.clock.sleep(context.state.settings.domain_change)
        domain.status = status
    where = f"Storage Domain {domain.name} (Data Center {context.state.data_centers[domain.data_center_id].name})"
    activated = f"{where} was activated by {cause.name}"
    deactivated = (
        f"{where} was deactivated and has moved to 'Preparing for maintenance' until it will no longer be accessed by "
        "any Host of the Data Center."
    )
    code, text = (968, deactivated) if status == "maintenance" else (966, activated)
    context.state.events.add(
        code,
        "normal",
        text,
        correlation_id=cause.correlation_id,
        storage_domain=domain.id,
        user=cause.user.id,
    )


def _check_idle(context: Context, disks: list[Disk]) -> None:
    ids = {disk.id for disk in disks}
    if any(item.disk_id in ids and item.phase in _TRANSFERRING for item in context.state.transfers.values()):
        raise conflict(f"{_DEACTIVATE}. Please pause or cancel all active disk uploads and downloads first.")
    for disk_id in ids:
        for vm in context.state.vms_of_disk(disk_id):
            if vm.status != "down" and vm.attachments[disk_id].active:
                raise conflict(f"{_DEACTIVATE}. {_VMS_RUN}")
    if any(disk.status == "locked" for disk in disks):
        raise conflict(f"{_DEACTIVATE} while there are running tasks on this Storage.\n{_WAIT}")


def _domain(call: Call) -> StorageDomain:
    domain = call.context.state.storage_domains.get(call.id("domain"))
    if domain is None or domain.data_center_id != data_center_of(call).id:
        raise NotFound(call.path)
    return domain
