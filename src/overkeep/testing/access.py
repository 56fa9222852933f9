# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-memory twin of access decisions: tokens and permits as tests give them."""

from __future__ import annotations

from overkeep.engine.api import Access, Identity, ObjectKind
from overkeep.errors import Unauthorized


class MemoryAccess(Access):
    """Knows the tokens that `add` gave it; an administrator has every permit that was ever given to anybody."""

    def __init__(self) -> None:
        self._people: dict[str, Identity] = {}
        self._permits: dict[tuple[str, ObjectKind, str], frozenset[str]] = {}
        self._faults: list[BaseException] = []

    def add(self, token: str, *, user_id: str, name: str = "", admin: bool = False) -> Identity:
        """Let a token belong to a user."""
        self._people[token] = Identity(user_id=user_id, name=name or user_id, admin=admin)
        return self._people[token]

    def allow(self, user_id: str, object_id: str, *permits: str, of: ObjectKind = ObjectKind.VM) -> None:
        """Give a user permits on an object."""
        key = (user_id, of, object_id)
        self._permits[key] = self._permits.get(key, frozenset()) | frozenset(permits)

    def forbid(self, user_id: str, object_id: str, *permits: str, of: ObjectKind = ObjectKind.VM) -> None:
        """Take permits on an object from a user."""
        key = (user_id, of, object_id)
        self._permits[key] = self._permits.get(key, frozenset()) - frozenset(permits)

    def fail(self, error: BaseException) -> None:
        """Let the next call raise."""
        self._faults.append(error)

    def revoke(self, token: str) -> None:
        """Let a token expire."""
        self._people.pop(token, None)

    def authenticate(self, token: str) -> Identity:
        if self._faults:
            raise self._faults.pop()
        if token not in self._people:
            raise Unauthorized
        return self._people[token]

    def permits(self, token: str, object_id: str, *, of: ObjectKind = ObjectKind.VM) -> frozenset[str]:
        identity = self.authenticate(token)
        if identity.admin:
            return frozenset().union({"backup_disk", "create_vm", "create_disk"}, *self._permits.values())
        return self._permits.get((identity.user_id, of, object_id), frozenset())

    def vms(self, token: str) -> frozenset[str]:
        """The VMs on which anything was allowed: to the user, or to anybody for an administrator."""
        identity = self.authenticate(token)
        mine = (key for key, permits in self._permits.items() if permits and key[1] is ObjectKind.VM)
        return frozenset(object_id for user, _, object_id in mine if identity.admin or user == identity.user_id)
