# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and groups, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Role:
    id: str
    name: str
    administrative: bool
    permits: frozenset[str]
    description: str = ""
    mutable: bool = False
    shows_children: bool = True  # whether its holder sees the VMs, disks and networks in the object


@dataclass(kw_only=True)
class User:
    """`principal` is the login without the profile: `admin@internal` has the principal `admin`, domain below."""

    id: str
    name: str
    domain: str
    password: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    group_ids: tuple[str, ...] = ()
    tags: set[str] = field(default_factory=set)
    ssh_keys: dict[str, str] = field(default_factory=dict)  # public keys for serial consoles, by id

    @property
    def login(self) -> str:
        return f"{self.name}@{self.domain}"


@dataclass(kw_only=True)
class Group:
    """A group of the directory."""

    id: str
    name: str
    domain: str
    tags: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Directory:
    """Whom the SSO knows, by id; the engine has only those of them that were added to it."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)


@dataclass(kw_only=True)
class Permission:
    """A role of a user or a group on an object; `on` is (kind, id) with kind `system` for the whole system."""

    id: str
    user_id: str = ""
    group_id: str = ""
    role_id: str
    on: tuple[str, str]
