# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that a restore makes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ovirtsdk4 import types

from overkeep.engine import ovf
from overkeep.engine.api import AttachSpec, NicSpec, VmSpec
from overkeep.engine.errors import EngineRefused, NameInUse, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.inventory import Inventory
from overkeep.engine.ovirt.session import Session
from overkeep.engine.ovirt.waits import Patience
from overkeep.errors import OverkeepError
from overkeep.logs import fields

_log = logging.getLogger(__name__)
_DOWN_SECONDS = 300.0
_GONE_SECONDS = 300.0
_RUNNING = {"up", "powering_up", "wait_for_launch", "reboot_in_progress", "restoring_state"}


class Vms:
    """Makes, starts and deletes VMs; each act may be repeated."""

    def __init__(self, session: Session, inventory: Inventory, *, patience: Patience) -> None:
        self._session = session
        self._inventory = inventory
        self._patience = patience

    def create(self, spec: VmSpec) -> str:
        """Make a VM from its kept OVF, or complete one that an earlier call began, and return its id.

        There is no falling back to a VM made of single fields when the Manager refuses the OVF: it would differ from
        what was backed up without anybody noticing.
        """
        vm_id = self._begun(spec) or self._import(spec)
        try:
            self._wait_until_down(vm_id, spec.name)
            with self._session.system(f"complete VM {spec.name}", what=f"VM {spec.name} or a part of it") as system:
                service = system.vms_service().vm_service(vm_id)
                _add_nics(service.nics_service(), spec.nics)
                _attach_disks(service.disk_attachments_service(), spec.disks)
        except OverkeepError as error:
            error.fields["vm_id"] = vm_id
            raise
        _log.info("VM made %s", fields(vm=vm_id, name=spec.name, disks=len(spec.disks), nics=len(spec.nics)))
        return vm_id

    def find_marked(self, name: str, *, description: str) -> str | None:
        """Return the id of the VM of this very name and description, None when there is none."""
        return next((vm_id for vm_id, found in self._descriptions(name) if found == description), None)

    def start(self, vm_id: str) -> None:
        """Start a VM; one that is running or about to is success. Does not wait."""
        with self._session.system(f"start VM {vm_id}", what=f"VM {vm_id}") as system:
            service = system.vms_service().vm_service(vm_id)
            if values.word(service.get().status) not in _RUNNING:
                service.start()

    def delete(self, vm_id: str, *, detach_only: bool) -> None:
        """Remove a VM and wait until it is gone; a missing one is success."""
        act, what = f"delete VM {vm_id}", f"VM {vm_id}"

        def look() -> tuple[bool | None, str]:
            try:
                with self._session.system(act, what=what) as system:
                    return None, values.word(system.vms_service().vm_service(vm_id).get().status)
            except NotFoundInEngine:
                return True, "gone"

        try:
            with self._session.system(act, what=what) as system:
                system.vms_service().vm_service(vm_id).remove(detach_only=detach_only)
        except NotFoundInEngine:
            return
        self._patience.until(look, act, what=what, seconds=_GONE_SECONDS)
        _log.info("VM deleted %s", fields(vm=vm_id, detach_only=detach_only))

    def _begun(self, spec: VmSpec) -> str | None:
        """Return the id of a VM of this name that bears our mark; raise `NameInUse` when it does not bear it."""
        for vm_id, description in self._descriptions(spec.name):
            if description != spec.description:
                raise NameInUse(name=spec.name, act="make a VM", words="the name is in use")
            return vm_id
        return None

    def _descriptions(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield id and description of the VMs of a name; one that vanishes meanwhile is left out."""
        for vm_id in self._inventory.ids_of(name):
            try:
                with self._session.system(f"show VM {name}", what=f"VM {name}") as system:
                    found = system.vms_service().vm_service(vm_id).get()
            except NotFoundInEngine:
                continue
            yield vm_id, found.description or ""

    def _import(self, spec: VmSpec) -> str:
        domains = self._inventory.storage_domains(cluster_id=spec.cluster_id)
        document = ovf.of_new_vm(spec.ovf, description=spec.description, storage_domain_ids=set(domains.values()))
        configuration = types.Configuration(type=types.ConfigurationType.OVF, data=document)
        vm = types.Vm(
            name=spec.name,
            description=spec.description,
            cluster=types.Cluster(id=spec.cluster_id),
            initialization=types.Initialization(regenerate_ids=True, configuration=configuration),
        )
        try:
            with self._session.system(f"make VM {spec.name}", what=f"cluster {spec.cluster_id}") as system:
                return str(system.vms_service().add(vm).id)
        except EngineRefused:
            begun = self._begun(spec)
            if begun is None:
                raise
            return begun  # a request of ours that was cut off had arrived after all

    def _wait_until_down(self, vm_id: str, name: str) -> None:
        def look() -> tuple[str | None, str]:
            with self._session.system(f"show VM {name}", what=f"VM {name}") as system:
                status = values.word(system.vms_service().vm_service(vm_id).get().status)
            return (None, status) if status in ("image_locked", "") else (status, status)

        self._patience.until(look, f"make VM {name}", what=f"VM {name}", seconds=_DOWN_SECONDS)


def _add_nics(service: Any, nics: tuple[NicSpec, ...]) -> None:
    there = {found.name for found in service.list()}
    for nic in nics:
        if nic.name not in there:
            service.add(_nic(nic))


def _nic(nic: NicSpec) -> Any:
    return types.Nic(
        name=nic.name,
        interface=values.member(types.NicInterface, nic.interface),
        vnic_profile=types.VnicProfile(id=nic.vnic_profile_id) if nic.vnic_profile_id else None,
        mac=types.Mac(address=nic.mac) if nic.mac else None,
    )


def _attach_disks(service: Any, disks: tuple[AttachSpec, ...]) -> None:
    there = {values.link_id(found.disk) or found.id for found in service.list()}
    for disk in disks:
        if disk.disk_id not in there:
            service.add(
                types.DiskAttachment(
                    disk=types.Disk(id=disk.disk_id),
                    interface=values.member(types.DiskInterface, disk.interface),
                    bootable=disk.bootable,
                    active=True,
                )
            )
