# SPDX-License-Identifier: GPL-3.0-or-later
"""`lab.json`: what a client of a lab needs to know, written when the lab is ready and readable by its owner only."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovirtlab.environment import Environment
from ovirtlab.fabric.assembly import Fabric, Target, mount_command
from ovirtlab.fabric.nfs import Export
from ovirtlab.places import Places

HOST_NAMESPACE = uuid.UUID("7f0f7b0e-5b39-5c0c-9f0b-0d2f1c6b7a11")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class EngineAddress:
    """Where the Engine listens: `base_url` is https://ADDRESS:PORT."""

    base_url: str

    @property
    def api(self) -> str:
        """The URL of the REST API."""
        return f"{self.base_url}/ovirt-engine/api"


def host_id(name: str) -> str:
    """Return the id of a host; the same in every lab for the same name."""
    return str(uuid.uuid5(HOST_NAMESPACE, name))


def collect(
    environment: Environment, fabric: Fabric, places: Places, *, engine: EngineAddress, described: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the document; `described` is what the Engine says of its VMs and storage domains."""
    return {
        "format": FORMAT,
        "pid": os.getpid(),
        "engine_url": engine.api,
        "ca_file": str(fabric.authority.certificate),
        "username": environment.username,
        "password": environment.password,
        "users": _users(environment),
        "sso_clients": [dataclasses.asdict(client) for client in environment.accounts.sso_clients],
        "isolated": fabric.network.isolated,
        "hosts": [_host(host.name, fabric, places) for host in environment.hosts],
        "imageio_proxy": {"address": fabric.proxy.address, "port": fabric.proxy.port},
        "storage_domains": described["storage_domains"],
        "target": None if fabric.target is None else _target(fabric.target),
        "exports": {} if fabric.target is None else _exports(fabric.target),
        "target_missing": fabric.target_missing,
        "vms": [_with_formats(vm, environment) for vm in described["vms"]],
    }


def _users(environment: Environment) -> list[dict[str, Any]]:
    """All that can log in, the administrator first, with the roles and groups that the environment gave them."""
    admin = {
        "username": environment.username,
        "password": environment.password,
        "groups": [],
        "roles": [{"role": "SuperUser", "kind": "system", "name": ""}],
    }
    others = [
        {
            "username": user.login,
            "password": user.password,
            "groups": list(user.groups),
            "roles": [dataclasses.asdict(grant) for grant in user.roles],
        }
        for user in environment.accounts.users
    ]
    return [admin, *others]


def _with_formats(vm: Mapping[str, Any], environment: Environment) -> dict[str, Any]:
    """Add to each disk what the environment asked for and the Engine does not say."""
    wanted = {disk.name: disk for one in environment.vms if one.name == vm["name"] for disk in one.disks}
    disks = [
        {"format": wanted[disk["name"]].format, "backup": wanted[disk["name"]].backup, **disk} for disk in vm["disks"]
    ]
    return {**vm, "disks": disks}


def _host(name: str, fabric: Fabric, places: Places) -> dict[str, Any]:
    daemon = fabric.imageio[name]
    return {
        "name": name,
        "id": host_id(name),
        "address": fabric.network.hosts[name],
        "netns": fabric.network.host_netns[name],
        "ports": {"imageio": daemon.port},
        "run_dir": str(places.host(name)),
        "imageio_control_socket": str(daemon.control_socket),
        "imageio_local_socket": str(daemon.local_socket),
    }


def _target(target: Target) -> dict[str, Any]:
    """The first export, which the lab has mounted on all hosts and for the controller."""
    mounts = {name: str(path) for name, path in target.mounts.items()}
    return {**_exports(target)[target.exports[0].name], "mounts": mounts}


def _exports(target: Target) -> dict[str, dict[str, Any]]:
    return {export.name: _export(export, target) for export in target.exports}


def _export(export: Export, target: Target) -> dict[str, Any]:
    source = target.server.source(export.name)
    return {
        "url": "nfs://" + source.replace(":", "", 1),
        "source": source,
        "options": target.options,
        "mount_command": mount_command(),
        "export_dir": str(export.path),
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` so that a reader sees all of it or nothing."""
    draft = path.with_suffix(".tmp")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file, indent=2, default=str)
        file.write("\n")
    draft.rename(path)


def read(path: Path) -> dict[str, Any] | None:
    """Return the document, None when the lab is not up."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return document
