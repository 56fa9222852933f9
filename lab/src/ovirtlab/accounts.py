# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use a lab besides its administrator: users, groups, roles, and programs that the SSO knows."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovirtlab.fields import Fields

LOGIN = re.compile(r"[^@\s]+@[A-Za-z0-9._-]+")
KINDS = ("vm", "storage_domain", "host", "cluster", "data_center")


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A role by its name on an object by its name; `kind` is `system` for the whole system."""

    role: str
    kind: str = "system"
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role made besides the predefined ones; `permits` are named as the API names them."""

    name: str
    administrative: bool
    permits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of the directory; its members have its roles. Not `added` is one that the engine does not know yet."""

    name: str
    added: bool = True
    roles: tuple[Grant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class User:
    """A user, `login` being name@profile, with roles of their own and those of their groups; `added` as of a group."""

    login: str
    password: str
    added: bool = True
    groups: tuple[str, ...] = ()
    roles: tuple[Grant, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SsoClient:
    """A program that the Engine's SSO knows, as `ovirt-register-sso-client-tool` makes it known."""

    client_id: str
    secret: str
    callback_prefix: str = ""
    encrypted_userinfo: bool = True


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """All of an environment."""

    roles: tuple[Role, ...] = ()
    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    sso_clients: tuple[SsoClient, ...] = ()


def read(top: Fields, objects: Mapping[str, Sequence[str]]) -> Accounts:
    """Read all of them; `objects` are the names there are of each kind but the predefined."""
    roles = tuple(_role(fields) for fields in top.items("roles", default=()))
    groups = tuple(_group(fields, objects) for fields in top.items("groups", default=()))
    names = [group.name for group in groups]
    users = tuple(_user(fields, names, objects) for fields in top.items("users", default=()))
    clients = tuple(_client(fields) for fields in top.items("sso_clients", default=()))
    return Accounts(roles=roles, users=users, groups=groups, sso_clients=clients)


def _role(fields: Fields) -> Role:
    role = Role(
        name=fields.text("name"),
        administrative=fields.flag("administrative", default=False),
        permits=fields.texts("permits"),
    )
    fields.done()
    return role


def _group(fields: Fields, objects: Mapping[str, Sequence[str]]) -> Group:
    group = Group(name=fields.text("name"), added=fields.flag("added", default=True), roles=_grants(fields, objects))
    _check_roles(fields, group)
    fields.done()
    return group


def _user(fields: Fields, groups: Sequence[str], objects: Mapping[str, Sequence[str]]) -> User:
    user = User(
        login=fields.text("name", pattern=LOGIN),
        password=fields.text("password", default="") or secrets.token_urlsafe(12),
        added=fields.flag("added", default=True),
        groups=fields.texts("groups"),
        roles=_grants(fields, objects),
    )
    _check_roles(fields, user)
    for group in user.groups:
        if group not in groups:
            raise fields.error("groups", f"names {group}, which is not one of the groups: {', '.join(groups)}")
    fields.done()
    return user


def _check_roles(fields: Fields, holder: User | Group) -> None:
    if holder.roles and not holder.added:
        raise fields.error("roles", "are given by the Engine, which does not know whom `added: false` keeps from it")


def _grants(fields: Fields, objects: Mapping[str, Sequence[str]]) -> tuple[Grant, ...]:
    return tuple(_grant(one, objects) for one in fields.items("roles", default=()))


def _grant(fields: Fields, objects: Mapping[str, Sequence[str]]) -> Grant:
    role = fields.text("role")
    named = {kind: name for kind in KINDS if (name := fields.text(kind, default=""))}
    fields.done()
    if not named:
        return Grant(role=role)
    if len(named) > 1:
        raise fields.error("role", f"is on {' and '.join(named)}; write one entry for each")
    ((kind, name),) = named.items()
    if kind in objects and name not in objects[kind]:
        raise fields.error(kind, f"is {name!r}; choose one of: {', '.join(objects[kind])}")
    return Grant(role=role, kind=kind, name=name)


def _client(fields: Fields) -> SsoClient:
    client = SsoClient(
        client_id=fields.text("client_id"),
        secret=fields.text("secret", default="") or secrets.token_urlsafe(24),
        callback_prefix=fields.text("callback_prefix", default=""),
        encrypted_userinfo=fields.flag("encrypted_userinfo", default=True),
    )
    fields.done()
    return client
