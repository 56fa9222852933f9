# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts on their way: into maintenance, through an installation or an upgrade, and up again."""

from __future__ import annotations

from ovirtlab.engine import migrations
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.events import Severity
from ovirtlab.engine.faults import Fault, conflict
from ovirtlab.engine.jobs import Cause

_UPGRADABLE = frozenset({"up", "maintenance", "non_operational", "install_failed"})
_SHOWN_PACKAGES = 10


def tell(
    context: Context,
    host: HostEntity,
    code: int,
    text: str,
    *,
    cause: Cause | None = None,
    severity: Severity = "normal",
) -> None:
    """An event about a host; without a cause the engine's own."""
    known = {} if cause is None else {"correlation_id": cause.correlation_id, "user": cause.user.id}
    context.state.events.add(code, severity, text, host=host.id, **known)


def check_maintenance(context: Context, host: HostEntity) -> None:
    """Refuse a host that is not up, or whose VMs have nowhere to go."""
    if host.status == "maintenance":
        raise conflict("Cannot switch Host to Maintenance mode. Host is already in Maintenance mode.")
    if host.status not in ("up", "preparing_for_maintenance"):
        raise conflict("Cannot switch Host to Maintenance mode, Host is not operational.")
    mine = [vm for vm in context.state.vms.values() if vm.host_id == host.id]
    bound = [vm.name for vm in mine if vm.affinity == "pinned"]
    if bound:
        raise conflict(
            f"Cannot switch the following Hosts to Maintenance mode: {host.name}.\nOne or more running VMs are "
            f"indicated as non-migratable. The non-migratable VMs are: {', '.join(bound)}."
        )
    others = [item for item in context.state.hosts.values() if item.cluster_id == host.cluster_id and item is not host]
    if mine and not any(item.status == "up" for item in others):
        cluster = context.state.clusters[host.cluster_id].name
        raise conflict(
            f"The following Hosts have running VMs and cannot be switched to maintenance mode: {host.name}.\n"
            f"Please ensure that the following Clusters have at least one Host in UP state: {cluster}."
        )


async def begin_maintenance(context: Context, host: HostEntity, cause: Cause) -> None:
    """From now on nothing starts on the host, and its VMs leave it."""
    host.status = "preparing_for_maintenance"
    await migrations.leave_host(context, host, cause=cause)


async def enter_maintenance(context: Context, host: HostEntity, cause: Cause) -> None:
    """Wait until its VMs and transfers are gone, or until somebody wants it otherwise."""
    while _is_busy(context, host):
        await context.clock.sleep(context.state.settings.host_refresh)
        if host.status != "preparing_for_maintenance":
            return
    host.status = "maintenance"
    tell(context, host, 620, f"Host {host.name} was switched to Maintenance mode by {cause.name}.", cause=cause)


def _is_busy(context: Context, host: HostEntity) -> bool:
    runs = any(vm.host_id == host.id for vm in context.state.vms.values())
    return runs or any(item.host_id == host.id and item.ended is None for item in context.state.transfers.values())


async def activate(context: Context, host: HostEntity, cause: Cause) -> None:
    """Up again on somebody's order; the host is `unassigned` already."""
    tell(context, host, 16, f"Activation of host {host.name} initiated by {cause.name}.", cause=cause)
    await _come_up(context, host)


async def _come_up(context: Context, host: HostEntity) -> None:
    before = host.status
    await context.clock.sleep(context.state.settings.host_activation)
    if host.status == before:
        host.status = "up"
        tell(context, host, 13, f"Status of host {host.name} was set to Up.")


async def install(context: Context, host: HostEntity) -> None:
    """The lab's hosts need no installation; it takes its time all the same."""
    await context.clock.sleep(context.state.settings.host_installation)
    host.status = "maintenance"


def check_upgrade_check(host: HostEntity) -> None:
    """Refuse to look for updates on a host that is not at rest."""
    if host.status not in _UPGRADABLE:
        raise conflict(
            "Cannot check for upgrade Host. Valid Host statuses for upgrade check are Up or Non-Operational."
        )


async def look_for_updates(context: Context, host: HostEntity, cause: Cause) -> None:
    """Ask the host, which may have left its status meanwhile, for packages that are newer than those it has."""
    if host.checking:
        text = f"Failed to check for available updates on host {host.name}: Another process is already running."
        tell(context, host, 886, text, severity="warning")
        return
    host.checking = True
    try:
        await context.clock.sleep(context.state.settings.host_update_check)
    finally:
        host.checking = False
    host.update_available = bool(host.updates)
    message = "no updates found."
    if host.updates:
        packages = _named(host.updates)
        tell(context, host, 843, f"Host {host.name} has available updates: {packages}.")
        message = packages if len(host.updates) > _SHOWN_PACKAGES else f"found updates for packages {packages}"
    text = f"Check for available updates on host {host.name} was completed successfully with message '{message}'."
    tell(context, host, 885, text, cause=cause)


def _named(packages: tuple[str, ...]) -> str:
    shown = ", ".join(packages[:_SHOWN_PACKAGES])
    more = len(packages) - _SHOWN_PACKAGES
    return shown if more <= 0 else f"{shown} and {more} others. To see all packages check engine.log."


def check_upgrade(host: HostEntity) -> None:
    """Refuse a host that is not at rest, or of which no update is known."""
    if host.status not in _UPGRADABLE:
        raise conflict("Cannot upgrade Host. Valid Host statuses for upgrade are Up, Maintenance, and Non-Operational.")
    if not host.update_available:
        raise conflict("Cannot upgrade Host. There are no available updates for the host.")


async def upgrade(context: Context, host: HostEntity, cause: Cause, *, reboot: bool) -> None:
    """Into maintenance, where the packages are installed, and back to what the host was before."""
    before = host.status
    if before != "maintenance" and not await _vacate(context, host, cause):
        tell(context, host, 17, f"Failed to switch Host {host.name} to Maintenance mode.", severity="error")
        text = f"Failed to upgrade Host {host.name} (User: {cause.name}). <UNKNOWN>."  # an engine does not say why
        tell(context, host, 841, text, cause=cause, severity="error")
        return
    host.status = "installing"
    await context.clock.sleep(context.state.settings.host_installation)
    host.updates, host.update_available = (), False
    if reboot:
        await _reboot(context, host, cause)
    else:
        tell(context, host, 842, f"Host {host.name} upgrade was completed successfully.", cause=cause)
    if before == "maintenance":
        host.status = "maintenance"
        return
    host.status = "non_responsive" if reboot else "initializing"
    await _come_up(context, host)


async def _vacate(context: Context, host: HostEntity, cause: Cause) -> bool:
    try:
        check_maintenance(context, host)
    except Fault:
        return False
    await begin_maintenance(context, host, cause)
    await enter_maintenance(context, host, cause)
    return host.status == "maintenance"


async def _reboot(context: Context, host: HostEntity, cause: Cause) -> None:
    """Nothing runs on the host, so there is nothing that a reboot would end."""
    host.status = "reboot"
    tell(context, host, 197, f"Host {host.name} was restarted using SSH by the engine.", cause=cause)
    text = f"Upgrade was successful and host {host.name} will be rebooted."
    tell(context, host, 888, text, cause=cause)
    await context.clock.sleep(context.state.settings.host_reboot)
