# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for the oVirt Engine: state, REST interface, logins and background work, as one ASGI application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from ovirtlab.engine import provision, running, seed, upkeep
from ovirtlab.engine.background import Background
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.context import Context, Proxy
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.reach import Line, Lines
from ovirtlab.engine.rest import (
    absent,
    administration,
    affinity,
    attachments,
    backups,
    catalogue,
    clones,
    cluster_upgrades,
    consoles,
    defaults,
    device_statistics,
    directories,
    disk_actions,
    disk_snapshots,
    disks,
    domains,
    events,
    host_nics,
    host_trust,
    hosts,
    inventory,
    jobs,
    migrations,
    network_labels,
    networking,
    new_vms,
    nics,
    people,
    permissions,
    quotas,
    roles,
    root,
    services,
    snapshots,
    ssh_keys,
    starts,
    storage_connections,
    stored_kinds,
    tags,
    template_nics,
    templates,
    transfers,
    vm_acts,
    vm_details,
    vms,
    welcome,
)
from ovirtlab.engine.rest.dispatch import Api
from ovirtlab.engine.rest.documents import API
from ovirtlab.engine.rest.login import Login
from ovirtlab.engine.rest.openid import OpenId
from ovirtlab.engine.rest.routing import Router
from ovirtlab.engine.rest.slashes import MergedSlashes
from ovirtlab.engine.sso import Sessions
from ovirtlab.engine.state import State
from ovirtlab.engine.timers import Settings
from ovirtlab.environment import Environment
from ovirtlab.host.api import Host

GROUPS = (
    absent,
    administration,
    affinity,
    attachments,
    backups,
    catalogue,
    clones,
    cluster_upgrades,
    consoles,
    device_statistics,
    directories,
    disk_actions,
    disk_snapshots,
    disks,
    domains,
    events,
    host_nics,
    host_trust,
    hosts,
    inventory,
    jobs,
    migrations,
    network_labels,
    networking,
    new_vms,
    nics,
    people,
    permissions,
    quotas,
    roles,
    root,
    snapshots,
    ssh_keys,
    starts,
    storage_connections,
    stored_kinds,
    tags,
    template_nics,
    templates,
    transfers,
    vm_acts,
    vm_details,
    vms,
)
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


class Engine:
    """One engine. `start` before serving `asgi`, `stop` after; both in the event loop that serves it."""

    def __init__(self, context: Context, environment: Environment, *, lines: Lines) -> None:
        self.context = context
        self.lines = lines
        self.sessions = Sessions(context.state, context.clock)
        for client in (welcome.client(context.base_url), *environment.accounts.sso_clients):
            self.sessions.register(client)
        self._environment = environment
        self.asgi = Starlette(routes=self._routes(), middleware=[Middleware(MergedSlashes)])

    @property
    def state(self) -> State:
        return self.context.state

    async def start(self) -> None:
        """Make the volumes, start the running VMs, and begin the engine's own loops."""
        running.watch(self.context)
        await provision.make_volumes(self.context)
        wanted = frozenset(vm.name for vm in self._environment.vms if vm.running)
        await provision.start_vms(self.context, wanted)
        upkeep.begin(self.context)

    async def stop(self) -> None:
        """End the engine's own work; VMs and servers belong to the hosts and go with them."""
        await self.context.background.stop()

    async def restart(self) -> None:
        """What a restart of the engine does to its clients and its work.

        Logins end, backups are marked failed, and what they had locked may stay so, as on a real engine. Transfers are
        taken up again, and so are acts on disks, snapshots, templates and VMs.
        """
        await self.context.background.interrupt()
        self.sessions.end_all()
        running.take_over(self.context)
        upkeep.begin(self.context)

    def find_vm(self, name_or_id: str) -> tuple[str, Host]:
        """Id of a VM and the host it runs on, or would run on when it is down; `NotFound` for no such VM."""
        for vm in self.state.vms.values():
            if name_or_id in (vm.id, vm.name):
                host_id = vm.host_id or vm.home_host_id or next(iter(self.context.hosts))
                return vm.id, self.lines[host_id].host
        raise NotFound(name_or_id)

    def describe(self) -> dict[str, Any]:
        """What a user of the lab needs to know: address, login, and ids of hosts, domains, VMs and disks."""
        state = self.state
        admin = state.users[seed.ADMIN_ID]
        return {
            "url": f"{self.context.base_url}{API}",
            "username": admin.login,
            "password": admin.password,
            "hosts": [
                {"id": host.id, "name": host.name, "address": host.address, "imageio_port": host.imageio_port}
                for host in state.hosts.values()
            ],
            "storage_domains": [
                {"id": domain.id, "name": domain.name, "path": str(domain.path)}
                for domain in state.storage_domains.values()
            ],
            "vms": [self._describe_vm(vm_id) for vm_id in state.vms],
        }

    def _describe_vm(self, vm_id: str) -> dict[str, Any]:
        vm = self.state.vms[vm_id]
        return {
            "id": vm.id,
            "name": vm.name,
            "status": vm.status,
            "guest": vm.guest,
            "agent": vm.agent,
            "host": self.state.hosts[vm.host_id].name if vm.host_id else "",
            "disks": [
                {"id": disk.id, "name": disk.alias, "size": disk.provisioned_size, "path": str(disk.path)}
                for disk in self.state.disks_of(vm)
            ],
        }

    def _routes(self) -> list[Route]:
        router = Router(*(group.routes for group in GROUPS))
        api = Api(self.context, self.sessions, router)
        return [
            Route(API, api.answer, methods=_METHODS),
            Route(f"{API}/{{path:path}}", api.answer, methods=_METHODS),
            *OpenId(self.sessions, self.state, self.context.clock, base_url=self.context.base_url).routes(),
            *Login(self.sessions, self.state, self.context.clock).routes(),
            *services.routes(self.context.ca_pem),
            *welcome.routes(),
        ]


def create_engine(
    environment: Environment,
    hosts: Sequence[Host],
    directory: Path,
    *,
    base_url: str,
    ca_pem: str,
    proxy: Proxy | None = None,
) -> Engine:
    """Make an engine for an environment whose hosts exist; its volumes will lie in `directory/storage`.

    `base_url` is the address clients use, without a path: `https://engine.lab:8443`.
    """
    clock = Clock(environment.time_scale)
    state = State(clock)
    seed.fill(state, environment, hosts, directory=directory)
    defaults.fill(state)
    known = {setting.name for setting in fields(Settings)}
    for name, value in environment.settings.items():
        if name not in known:
            raise UnknownSetting(name)
        setattr(state.settings, name, type(getattr(state.settings, name))(value))
    lines = {host.id: Line(host) for host in hosts}
    context = Context(
        state=state,
        hosts=cast(Mapping[str, Host], lines),
        clock=clock,
        background=Background(clock),
        directory=directory,
        base_url=base_url.rstrip("/"),
        ca_pem=ca_pem,
        proxy=proxy,
    )
    return Engine(context, environment, lines=lines)


class UnknownSetting(ValueError):
    """The environment sets something that the engine's configuration does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The setting {name} is not known; see ovirtlab.engine.timers.Settings for those that are.")
