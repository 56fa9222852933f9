# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs moved to other hosts while they run: on order, or as their host is put into maintenance."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ovirtlab.engine import jobs, reach, running
from ovirtlab.engine.backups.rules import locked_disks
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.events import Severity
from ovirtlab.engine.faults import Fault, conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.snapshots import rules
from ovirtlab.host import migration
from ovirtlab.host.api import HostError, MigrationLimits

log = logging.getLogger(__name__)

CANNOT = "Cannot migrate VM"
_QUALIFIED = frozenset({"up", "powering_up", "paused", "reboot_in_progress"})
_NOWHERE = (
    f"{CANNOT}. There is no host that satisfies current scheduling constraints. See below for details:",
    "There are no hosts to use. Check that the cluster contains at least one host in Up state.",
)
_MEGABIT = 1_000_000 // 8

STARTED, DONE, ABORTED, FAILED, STARTED_BY_SYSTEM = 62, 63, 64, 65, 67
FAILED_TO_HOST, TRYING_ANOTHER, FAILED_IN_MAINTENANCE, NO_HOST = 120, 128, 140, 166
CANCELLED, FAILED_IN_MAINTENANCE_NO_HOST = 161, 1111


@dataclass(frozen=True, kw_only=True)
class MigrationRequest:
    """What is asked for: a host or any, a cluster or the VM's own; `reason` is why the engine itself asks for it."""

    host_id: str = ""
    cluster_id: str = ""
    force: bool = False
    reason: str = ""


@dataclass(kw_only=True)
class Move:
    """A migration under way; `tried` are hosts to which it did not succeed."""

    vm: Vm
    source: HostEntity
    sink: HostEntity
    request: MigrationRequest
    cause: Cause
    lock: Lock
    begun: float
    tried: set[str] = field(default_factory=set)


def begin(context: Context, vm: Vm, request: MigrationRequest, *, cause: Cause) -> Move:
    """Check, lock and mark a VM for its migration; `run` moves it."""
    state = context.state
    if request.host_id:
        _check_host(context, request.host_id)
    holder = state.locks.holder([("vm", vm.id)])
    if holder is not None:
        raise conflict(holder.refusal(CANNOT))
    _check_vm(context, vm, request)
    sink = _choose(context, vm, request)
    why = f"VM {vm.name} is being migrated."
    lock = state.locks.take(exclusive=[("vm", vm.id)], why=why, action=CANNOT)
    source = state.hosts[vm.host_id]
    vm.status, vm.migration_progress = "migrating", 0
    begun = context.clock.seconds()
    move = Move(vm=vm, source=source, sink=sink, request=request, cause=cause, lock=lock, begun=begun)
    _tell_start(context, move)
    return move


async def run(context: Context, move: Move) -> None:
    """Move a VM. It stays where it is when that fails, and goes to another host where none was asked for."""
    name = f"Migrating VM {move.vm.name}"
    if move.request.host_id:
        name += f" to Host {move.sink.name}"
    job = jobs.begin(context.state, name, cause=move.cause)
    moved = False
    try:
        while not (moved := await _try(context, move)) and _go_elsewhere(context, move):
            continue
    finally:
        move.lock.release()
        jobs.end(context.state, job, succeeded=moved)


async def cancel(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Give a migration up; the VM stays where it is."""
    if vm.status != "migrating":
        raise conflict("Cannot cancel migration for non migrating VM.")
    try:
        await context.host_of(vm).cancel_migration(vm.id)
    except HostError as error:
        text = (
            "Cancel migration has failed. Please try again in a few moments and track the VM's event list for details"
        )
        raise conflict(text) from error
    vm.migration_cancelled = True
    source = context.state.hosts[vm.host_id]
    text = f"Migration cancelled (VM: {vm.name}, Source: {source.name}, User: {cause.name})."
    _tell(context, vm, CANCELLED, text, cause=cause)


async def leave_host(context: Context, host: HostEntity, *, cause: Cause) -> None:
    """Move all VMs off a host that is put into maintenance; those that cannot move stay."""
    request = MigrationRequest(reason="Host preparing for maintenance")
    for vm in [vm for vm in context.state.vms.values() if vm.host_id == host.id and vm.status != "migrating"]:
        try:
            move = begin(context, vm, request, cause=cause)
        except Fault as refusal:
            log.info("VM %s does not leave host %s: %s", vm.name, host.name, refusal)
            _tell_failure(context, vm, host, None, refusal.detail, cause=cause)
            continue
        context.background.undertake(run(context, move), name=f"migration of VM {vm.name}")


def _check_host(context: Context, host_id: str) -> None:
    host = context.state.hosts.get(host_id)
    if host is None:
        raise invalid(f"{CANNOT}. Invalid Host Id.")
    if host.status != "up":
        raise conflict(f"{CANNOT}. Operation can be performed only when Host status is Up.")


def _check_vm(context: Context, vm: Vm, request: MigrationRequest) -> None:
    """Refuse a VM that may not move now, in the order in which the engine looks."""
    if any(b.vm_id == vm.id and not b.has_ended and b.kind != "hybrid" for b in context.state.backups.values()):
        raise conflict(f"{CANNOT}. The VM is during a backup operation.")
    if vm.affinity == "pinned":
        raise conflict(f"{CANNOT}. VM is pinned to Host.")
    if vm.affinity == "user_migratable" and not request.force:
        raise conflict(f"{CANNOT}. VM is non migratable and user did not specify the force-migration flag")
    if vm.status == "migrating":
        raise conflict(f"{CANNOT}. VM migration is in progress")
    if vm.status == "paused" and vm.status_detail:
        raise invalid("Migrating a VM in paused status due to I/O error is not supported.")
    if vm.status not in _QUALIFIED or not vm.host_id:
        raise conflict(f"{CANNOT}. VM is not running.")
    _check_disks(context, vm, request)


def _check_disks(context: Context, vm: Vm, request: MigrationRequest) -> None:
    state = context.state
    snapshots = [state.disks[item.disk_id].alias for item in vm.snapshot_disks.values() if item.active]
    if snapshots:
        raise conflict(
            f"{CANNOT}. The following VM's activated disks are disk snapshots (VM/Disk Snapshots):\n\n"
            f"{vm.name} / {','.join(snapshots)}. \n\nPlease deactivate them and try again."
        )
    if request.cluster_id and request.cluster_id not in state.clusters:
        raise invalid(f"{CANNOT}. Cluster does not exist.")
    rules.check_idle(context, vm, CANNOT)
    plugged = tuple(disk_id for disk_id, attachment in vm.attachments.items() if attachment.active)
    fault = locked_disks(state, plugged, action=CANNOT)
    if fault is not None:
        raise fault


def _choose(
    context: Context, vm: Vm, request: MigrationRequest, *, besides: frozenset[str] = frozenset()
) -> HostEntity:
    """The host that was asked for, or another of the cluster; a refusal that names each that does not fit, and why."""
    cluster_id = request.cluster_id or vm.cluster_id
    up = [host for host in context.state.hosts.values() if host.status == "up" and host.cluster_id == cluster_id]
    found = [host for host in up if host.id not in besides and (not request.host_id or host.id == request.host_id)]
    if not found:
        raise conflict(*_NOWHERE)
    reasons = []
    for host in found:
        if host.id == vm.host_id:
            reasons.append(f"{_unfit(host, 'Migration')} because it currently hosts the VM.")
        elif vm.allowed_hosts and host.id not in vm.allowed_hosts:
            reasons.append(f"{_unfit(host, 'PinToHost')} because the host is not present in the pinning list.")
        else:
            return host
    raise conflict(_NOWHERE[0], *reasons)


def _unfit(host: HostEntity, unit: str) -> str:
    return f"The host {host.name} did not satisfy internal filter {unit}"


async def _try(context: Context, move: Move) -> bool:
    """Move a VM to the host chosen for it; False, with an event or two, when it stays where it is.

    The hosts do it among themselves: it goes on also while the engine does not reach them.
    """
    vm, settings = move.vm, context.state.settings
    source, sink = (reach.direct(context.hosts[host.id]) for host in (move.source, move.sink))
    cluster = context.state.clusters[vm.cluster_id]
    stall = context.clock.real(settings.migration_progress_timeout)
    limits = MigrationLimits(bandwidth=cluster.migration_mbps * _MEGABIT, stall=stall)

    def report(percent: int) -> None:
        vm.migration_progress = percent

    began = context.clock.seconds()
    try:
        downtime = await migration.migrate(vm.id, source, sink, limits=limits, report=report)
    except HostError as error:
        log.info("VM %s stays at host %s: %s", vm.name, move.source.name, error)
        _stayed(context, move, str(error))
        return False
    await _arrived(context, move)
    now = context.clock.seconds()
    text = (
        f"Migration completed (VM: {vm.name}, Source: {move.source.name}, Destination: {move.sink.name}, "
        f"Duration: {_words(now - began)}, Total: {_words(now - move.begun)}, Actual downtime: {downtime}ms)"
    )
    _tell(context, vm, DONE, text, cause=move.cause)
    return True


async def _arrived(context: Context, move: Move) -> None:
    """The VM runs at the other host, unless somebody has stopped it at the last moment, when it was still at the first.

    What has become of it since it is there is told by that host.
    """
    vm = move.vm
    vm.cluster_id, vm.migration_progress = move.request.cluster_id or vm.cluster_id, 0
    if vm.status in ("down", "powering_down"):
        await context.hosts[move.sink.id].stop_vm(vm.id, force=True)
        return
    vm.host_id = move.sink.id
    if move.sink.status == "non_responsive":
        vm.status = "unknown"
    else:
        running.believe(context, vm)


def _stayed(context: Context, move: Move, error: str) -> None:
    """What became of a VM that was not moved: its host has told of it when it stopped by itself."""
    vm, cancelled = move.vm, move.vm.migration_cancelled
    vm.migration_cancelled, vm.migration_progress = False, 0
    if vm.status == "migrating":
        running.believe(context, vm)
    if vm.status in ("down", "powering_down"):
        text = f"Migration failed: {error} (VM: {vm.name}, Source: {move.source.name})."
        _tell(context, vm, ABORTED, text, cause=move.cause, severity="error")
    elif cancelled:
        move.tried |= set(context.state.hosts)  # whoever cancelled it does not want it elsewhere
    elif not move.request.host_id and _elsewhere(context, move) is not None:
        text = (
            f"Failed to migrate VM {vm.name} to Host {move.sink.name} due to an Error: {error}. "
            "Trying to migrate to another Host."
        )
        _tell(context, vm, TRYING_ANOTHER, text, cause=move.cause, severity="warning")
    else:
        _tell_failure(context, vm, move.source, move.sink if move.request.host_id else None, error, cause=move.cause)


def _elsewhere(context: Context, move: Move) -> HostEntity | None:
    try:
        besides = frozenset({*move.tried, move.sink.id})
        return _choose(context, move.vm, move.request, besides=besides)
    except Fault:
        return None


def _go_elsewhere(context: Context, move: Move) -> bool:
    """Choose another host after one that did not do; False when there is none, or the VM shall not go there."""
    chosen = _elsewhere(context, move)
    if move.request.host_id or move.vm.status != "up" or chosen is None:
        return False
    move.tried.add(move.sink.id)
    move.sink, move.vm.status = chosen, "migrating"
    return True


def _tell_start(context: Context, move: Move) -> None:
    where = f"VM: {move.vm.name}, Source: {move.source.name}, Destination: {move.sink.name}"
    if move.request.reason:
        text = f"Migration initiated by system ({where}, Reason: {move.request.reason})."
        _tell(context, move.vm, STARTED_BY_SYSTEM, text, cause=move.cause)
    else:
        text = f"Migration started ({where}, User: {move.cause.name}). "
        _tell(context, move.vm, STARTED, text, cause=move.cause)


def _tell_failure(
    context: Context, vm: Vm, source: HostEntity, sink: HostEntity | None, error: str, *, cause: Cause
) -> None:
    """The events of a migration that nobody tries again; `sink` is the host it was ordered to."""
    due, where = f" due to an Error: {error}", f"VM: {vm.name}, Source: {source.name}"
    if sink is not None:
        text = f"Migration failed{due} ({where}, Destination: {sink.name})."
        _tell(context, vm, FAILED_TO_HOST, text, cause=cause, severity="error")
        return
    text = f"No available host was found to migrate VM {vm.name} to."
    _tell(context, vm, NO_HOST, text, cause=cause, severity="warning")
    if source.status == "preparing_for_maintenance":
        text = (
            f"Migration failed{due} while Source Host is in 'preparing for maintenance' state.\n"
            "  Consider manual intervention: stopping/migrating Vms as Host's state will not\n"
            f"  turn to maintenance while VMs are still running on it.({where})."
        )
        _tell(context, vm, FAILED_IN_MAINTENANCE_NO_HOST, text, cause=cause, severity="error")
    else:
        _tell(context, vm, FAILED, f"Migration failed{due} ({where}).", cause=cause, severity="error")


def _words(seconds: float) -> str:
    """A duration as the engine writes it."""
    minutes, rest = divmod(int(seconds), 60)
    parts = [(minutes, "minute"), (rest, "second")]
    shown = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in parts if count]
    return " ".join(shown) or "0 seconds"


def _tell(context: Context, vm: Vm, code: int, text: str, *, cause: Cause, severity: Severity = "normal") -> None:
    context.state.events.add(
        code,
        severity,
        text,
        correlation_id=cause.correlation_id,
        vm=vm.id,
        host=vm.host_id,
        cluster=vm.cluster_id,
        user=cause.user.id,
    )
