# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a caller may do something: his own permits on the very VM in the Manager decide, nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overkeep.engine.api import Access, Identity
from overkeep.errors import Forbidden

BACKUP = "backup_disk"
CREATE_VM = "create_vm"


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

    def may(self, permit: str, vm_id: str) -> bool:
        """Whether he has a permit on a VM; an administrator has all, also on VMs that are gone."""
        return self.identity.admin or permit in self.access.permits(self.token, vm_id)

    def require(self, permit: str, vm_id: str, *, act: str, vm_name: str) -> None:
        """Raise `Forbidden` unless he has the permit."""
        if not self.may(permit, vm_id):
            raise Forbidden(act=act, what=f"VM {vm_name!r}", permit=permit)

    def may_see(self, vm_ids: Iterable[str]) -> bool:
        """Whether he may see what concerns these VMs: he needs the right to back up at least one of them."""
        return self.identity.admin or any(self.may(BACKUP, vm_id) for vm_id in vm_ids)

    def require_admin(self, act: str) -> None:
        """Raise `Forbidden` unless he administers the Manager."""
        if not self.identity.admin:
            raise Forbidden(act=act, what="the backup service", permit="SuperUser")


def identify(access: Access, token: str) -> Caller:
    """Return who a token belongs to; raise `Unauthorized`."""
    return Caller(token=token, identity=access.authenticate(token), access=access)
