# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab holds, read from YAML into frozen values, with errors that say where in the file and what to write."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from ovirtlab import accounts
from ovirtlab.accounts import Accounts
from ovirtlab.fields import BadEnvironment, Fields

GIB = 1 << 30
MIB = 1 << 20
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
VM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")

__all__ = [
    "BadEnvironment",
    "Disk",
    "Environment",
    "Export",
    "Host",
    "StorageDomain",
    "Vm",
    "default",
    "load",
    "parse",
    "scaled",
]


@dataclass(frozen=True, kw_only=True)
class Host:
    """A hypervisor; `updates` are the packages that it has newer ones for, once it is asked."""

    name: str
    updates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StorageDomain:
    """A data domain of files; with a `size` in bytes it is a file system of its own, in memory, that can be full."""

    name: str
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """A folder that the NFS server gives out as `/name`.

    With a `size` in bytes it is a file system of its own of that size, in memory: something that can be full. With
    `folder_of` it gives out the folder of another export once more, as to be read only.
    """

    name: str
    read_only: bool = False
    size: int = 0
    folder_of: str = ""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk of a VM; `size` in bytes. `backup` is the Engine's attribute: may the disk be backed up incrementally."""

    name: str
    size: int
    format: Literal["qcow2", "raw"] = "qcow2"
    backup: Literal["incremental", "none"] = "none"
    bootable: bool = False
    storage_domain: str = ""


@dataclass(frozen=True, kw_only=True)
class Vm:
    """A VM; `guest` `none` has a block layer only, `linux` boots a small Linux from its first disk."""

    name: str
    host: str
    disks: tuple[Disk, ...]
    memory_mib: int = 128
    guest: Literal["none", "linux"] = "none"
    agent: bool = False
    running: bool = True


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A whole lab.

    `time_scale` is how many seconds of the Engine's timers pass in a real one; `settings` overrides single values of
    the Engine's configuration by their names in `ovirtlab.engine.timers.Settings`. The first of `exports` is the one
    that all hosts have mounted.
    """

    hosts: tuple[Host, ...]
    storage_domains: tuple[StorageDomain, ...]
    vms: tuple[Vm, ...]
    username: str
    password: str
    time_scale: float = 1.0
    settings: Mapping[str, float | bool] = dataclasses.field(default_factory=dict)
    exports: tuple[Export, ...] = (Export(name="backup"),)
    accounts: Accounts = dataclasses.field(default_factory=Accounts)


def default() -> Environment:
    """Return the environment that `ovirtlab up` starts when none is named."""
    return parse(resources.files("ovirtlab").joinpath("environments/default.yaml").read_text(), origin="default.yaml")


def load(path: Path) -> Environment:
    """Read a file; raise `BadEnvironment`."""
    try:
        text = path.read_text()
    except OSError as error:
        raise BadEnvironment(f"The environment {path} cannot be read: {error.strerror}.") from error
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str) -> Environment:
    """Read YAML; `origin` names it in errors. Raises `BadEnvironment`."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadEnvironment(f"{origin} is not YAML: {' '.join(str(error).split())}.") from error
    top = Fields(document, place=origin)
    hosts = _many(top, "hosts", _host)
    domains = _many(top, "storage_domains", _domain, default=({"name": "data"},))
    context = _Context(hosts=hosts, domains=domains)
    vms = tuple(_vms(top, context))
    environment = Environment(
        hosts=hosts,
        storage_domains=domains,
        vms=vms,
        username=top.text("username", default="admin@internal"),
        password=top.text("password", default="") or secrets.token_urlsafe(12),
        time_scale=top.number("time_scale", default=1.0, least=0.001),
        settings=top.numbers("settings"),
        exports=_exports(top),
        accounts=_accounts(top, {"host": hosts, "storage_domain": domains, "vm": vms}),
    )
    top.done()
    return environment


def _accounts(top: Fields, objects: Mapping[str, Sequence[Any]]) -> Accounts:
    found = accounts.read(top, {kind: [item.name for item in items] for kind, items in objects.items()})
    _distinct(top, "roles", [role.name for role in found.roles])
    _distinct(top, "users", [top.text("username", default="admin@internal"), *(user.login for user in found.users)])
    _distinct(top, "groups", [group.name for group in found.groups])
    _distinct(top, "sso_clients", [client.client_id for client in found.sso_clients])
    return found


@dataclass(frozen=True, kw_only=True)
class _Context:
    hosts: Sequence[Host]
    domains: Sequence[StorageDomain]


def _many(
    top: Fields, key: str, read: Callable[[Fields], Any], *, default: Sequence[Any] | None = None
) -> tuple[Any, ...]:
    items = tuple(read(fields) for fields in top.items(key, default=default))
    if not items:
        raise top.error(key, "is empty; name at least one")
    _distinct(top, key, [item.name for item in items])
    return items


def _distinct(top: Fields, key: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise top.error(key, f"names {', '.join(twice)} more than once; give each its own name")


def _host(fields: Fields) -> Host:
    host = Host(name=fields.text("name", pattern=NAME), updates=fields.texts("updates"))
    fields.done()
    return host


def _domain(fields: Fields) -> StorageDomain:
    domain = StorageDomain(name=fields.text("name", pattern=NAME), size=fields.size("size", default=0, least=0))
    fields.done()
    return domain


def _exports(top: Fields) -> tuple[Export, ...]:
    exports: tuple[Export, ...] = _many(top, "exports", _export, default=({"name": "backup"},))
    plain = [export.name for export in exports if not export.folder_of]
    for export in exports:
        if export.folder_of and export.folder_of not in plain:
            raise top.error("exports", f"has no folder of its own named {export.folder_of}; name one of {plain}")
    return exports


def _export(fields: Fields) -> Export:
    export = Export(
        name=fields.text("name", pattern=NAME),
        read_only=fields.flag("read_only", default=False),
        size=fields.size("size", default=0, least=0),
        folder_of=fields.text("folder_of", default=""),
    )
    if export.size and export.folder_of:
        raise fields.error("size", "is that of the other export; leave it out")
    fields.done()
    return export


def _vms(top: Fields, context: _Context) -> list[Vm]:
    vms: list[Vm] = []
    for fields in top.items("vms", default=()):
        count = fields.whole("count", default=0)
        numbered = _copies(fields, count) if count else [fields]
        for one in numbered:
            vms.append(_vm(one, context, place=len(vms)))
    _distinct(top, "vms", [vm.name for vm in vms])
    return vms


def _copies(fields: Fields, count: int) -> list[Fields]:
    """Make `count` VMs of one entry: `name: test` gives test-1, test-2 and so on."""
    name = fields.text("name", pattern=VM_NAME)
    return [fields.copy(name=f"{name}-{number}") for number in range(1, count + 1)]


def _vm(fields: Fields, context: _Context, *, place: int) -> Vm:
    name = fields.text("name", pattern=VM_NAME)
    guest = fields.choice("guest", ("none", "linux"), default="none")
    hosts = [host.name for host in context.hosts]
    disks = tuple(
        _disk(one, name, number, context) for number, one in enumerate(fields.items("disks", default=()), start=1)
    )
    if guest == "linux" and not disks:
        raise fields.error("disks", "is missing; a Linux guest needs a disk for its system")
    _distinct(fields, "disks", [disk.name for disk in disks])
    vm = Vm(
        name=name,
        host=fields.choice("host", hosts, default=hosts[place % len(hosts)]),
        memory_mib=fields.size("memory", default=128 * MIB, least=MIB) // MIB,
        guest=guest,  # type: ignore[arg-type]
        agent=fields.flag("agent", default=guest == "linux"),
        running=fields.flag("running", default=True),
        disks=_with_boot_disk(disks),
    )
    if vm.agent and guest == "none":
        raise fields.error("agent", "is true, but there is no guest that could run one; set `guest: linux`")
    fields.done()
    return vm


def _disk(fields: Fields, vm: str, number: int, context: _Context) -> Disk:
    domains = [domain.name for domain in context.domains]
    disk = Disk(
        name=fields.text("name", default=f"{vm}_Disk{number}", pattern=VM_NAME),
        size=fields.size("size", least=MIB),
        format=fields.choice("format", ("qcow2", "raw"), default="qcow2"),  # type: ignore[arg-type]
        backup=fields.choice("backup", ("incremental", "none"), default="none"),  # type: ignore[arg-type]
        bootable=fields.flag("bootable", default=False),
        storage_domain=fields.choice("storage_domain", domains, default=domains[0]),
    )
    if disk.backup == "incremental" and disk.format == "raw":
        raise fields.error("backup", "is incremental, which only qcow2 disks can do; set `format: qcow2`")
    fields.done()
    return disk


def _with_boot_disk(disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """Make the first disk bootable when none was said to be."""
    if not disks or any(disk.bootable for disk in disks):
        return disks
    return (dataclasses.replace(disks[0], bootable=True), *disks[1:])


def scaled(environment: Environment, *, hosts: int | None = None, vms: int | None = None) -> Environment:
    """Return the environment with that many hosts and VMs: the first ones, then more; added VMs have no guest."""
    chosen_hosts = _resized(environment.hosts, hosts, lambda number: Host(name=f"host{number}"))
    names = [host.name for host in chosen_hosts]
    moved = [
        vm if vm.host in names else dataclasses.replace(vm, host=names[index % len(names)])
        for index, vm in enumerate(environment.vms)
    ]
    domain = environment.storage_domains[0].name

    def extra(number: int) -> Vm:
        disk = Disk(name=f"plain{number}_Disk1", size=GIB, backup="incremental", bootable=True, storage_domain=domain)
        return Vm(name=f"plain{number}", host=names[(number - 1) % len(names)], disks=(disk,))

    return dataclasses.replace(environment, hosts=chosen_hosts, vms=_resized(tuple(moved), vms, extra))


def _resized(items: tuple[Any, ...], count: int | None, make: Callable[[int], Any]) -> tuple[Any, ...]:
    if count is None:
        return items
    names = {item.name for item in items}
    made = (make(number) for number in range(1, count + len(items) + 1))
    fresh = [item for item in made if item.name not in names]
    return (*items[:count], *fresh[: max(0, count - len(items))])
