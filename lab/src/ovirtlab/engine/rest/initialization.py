# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest would be set up with by cloud-init, sysprep or ignition: kept and shown, and used by no guest here."""

from __future__ import annotations

from typing import Any

from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Entity
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.state import State

_NAME = "initialization"
_FIELDS = (
    "active_directory_ou", "authorized_ssh_keys", "cloud_init", "cloud_init_network_protocol", "custom_script",
    "dns_search", "dns_servers", "domain", "host_name", "input_locale", "nic_configurations", "org_name",
    "regenerate_ssh_keys", "root_password", "system_locale", "timezone", "ui_language", "user_locale", "user_name",
    "windows_license_key",
)  # fmt: skip
_UNTOLD = "root_password"


def read(state: State, body: Body) -> Entity | None:
    """The settings in the `initialization` of a request; None when there are none."""
    child = body.child(_NAME)
    kept: dict[str, Any] = {}
    if child is not None:
        keep(state, kept, child, _FIELDS)
    return Entity(_NAME, kept) if kept else None


def keep_own(state: State, vm: Vm, body: Body) -> None:
    """Take over those that a request has, beside those the VM has."""
    new = read(state, body)
    if new is not None:
        before = vm.kept.get(_NAME)
        vm.kept[_NAME] = Entity(_NAME, {**(before.fields if before else {}), **new.fields})


def show(vm: Vm) -> Entity | None:
    """As the API gives it: the password is never told."""
    own = vm.kept.get(_NAME)
    if own is None:
        return None
    return Entity(_NAME, {name: value for name, value in own.fields.items() if name != _UNTOLD})
