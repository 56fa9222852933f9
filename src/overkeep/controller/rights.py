# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a caller may do something: his own permits on the very objects in the Manager decide, nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overkeep.engine.api import Access, Identity, ObjectKind
from overkeep.errors import Forbidden
from overkeep.model.restore import Targets

BACKUP = "backup_disk"
CREATE_VM = "create_vm"
CREATE_DISK = "create_disk"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who calls, with his token of the Manager."""

    token: str
    identity: Identity
    access: Access

    @property
    def name(self) -> str:
        """His name in the Manager."""
        return self.identity.name

    def may(self, permit: str, object_id: str, *, of: ObjectKind = ObjectKind.VM) -> bool:
        """Whether he has a permit on an object; an administrator has all, also on VMs that are gone."""
        return self.identity.admin or permit in self.access.permits(self.token, object_id, of=of)

    def require(self, permit: str, vm_id: str, *, act: str, vm_name: str) -> None:
        """Raise `Forbidden` unless he has the permit."""
        if not self.may(permit, vm_id):
            raise Forbidden(act=act, what=f"VM {vm_name!r}", permit=permit)

    def require_targets(self, targets: Targets, *, vm_name: str) -> None:
        """Raise `Forbidden` unless he may make the VM and all its disks where a restore would make them."""
        cluster = targets.cluster
        if not self.may(CREATE_VM, cluster.id, of=ObjectKind.CLUSTER):
            raise Forbidden(
                act=f"restore VM {vm_name!r} into", what=f"{ObjectKind.CLUSTER} {cluster.name!r}", permit=CREATE_VM
            )
        for domain in targets.storage_domains:
            if not self.may(CREATE_DISK, domain.id, of=ObjectKind.STORAGE_DOMAIN):
                where = f"{ObjectKind.STORAGE_DOMAIN} {domain.name!r}"
                raise Forbidden(act=f"restore disks of VM {vm_name!r} onto", what=where, permit=CREATE_DISK)

    def may_see(self, vm_ids: Iterable[str]) -> bool:
        """Whether he may see what concerns these VMs: he needs the right to back up at least one of them."""
        return self.identity.admin or any(self.may(BACKUP, vm_id) for vm_id in vm_ids)

    def shown(self) -> frozenset[str] | None:
        """The VMs that the Manager shows him, of which he may see some; None for an administrator, who sees all."""
        return None if self.identity.admin else self.access.vms(self.token)

    def knows(self, vm_id: str) -> bool:
        """Whether he may learn that a VM exists: he has some right on it."""
        return self.identity.admin or bool(self.access.permits(self.token, vm_id))

    def require_admin(self, act: str) -> None:
        """Raise `Forbidden` unless he administers the Manager."""
        if not self.identity.admin:
            raise Forbidden(act=act, what="the backup service", permit="SuperUser")


def identify(access: Access, token: str) -> Caller:
    """Return who a token belongs to; raise `Unauthorized`."""
    return Caller(token=token, identity=access.authenticate(token), access=access)
