# SPDX-License-Identifier: GPL-3.0-or-later
"""`/users/{user}/sshpublickeys`: the key a user would reach serial consoles with; it is kept, and opens nothing."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ovirtlab.engine.access import may
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.faults import Forbidden, NotFound, incomplete, invalid
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.people import user_of
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import SYSTEM

routes = Routes()

_PROPERTY = "User Profile Property"


@routes.get("users/{user}/sshpublickeys")
async def list_keys(call: Call) -> Collection:
    user = user_of(call)
    return Collection("ssh_public_keys", "ssh_public_key", [_show(user, key) for key in user.ssh_keys])


@routes.get("users/{user}/sshpublickeys/{key}")
async def get_key(call: Call) -> Entity:
    user = user_of(call)
    return _show(user, _key(call, user))


@routes.post("users/{user}/sshpublickeys")
async def add_key(call: Call) -> Created:
    """A user has one; a key that is none is refused."""
    user = _owned(call)
    content = _content(call, "add")
    if user.ssh_keys:
        raise invalid(f"Cannot add {_PROPERTY}. Multiple public SSH keys are not supported.")
    key = call.context.state.new_id()
    user.ssh_keys[key] = content
    return Created(lambda: _show(user, key))


@routes.put("users/{user}/sshpublickeys/{key}")
async def update_key(call: Call) -> Entity:
    """The new key has another id."""
    user = _owned(call)
    old, content = _key(call, user), _content(call, "update")
    del user.ssh_keys[old]
    key = call.context.state.new_id()
    user.ssh_keys[key] = content
    return _show(user, key)


@routes.delete("users/{user}/sshpublickeys/{key}")
async def remove_key(call: Call) -> Done:
    user = _owned(call)
    del user.ssh_keys[_key(call, user)]
    return Done()


def _owned(call: Call) -> User:
    """The user of the path, when that is who calls, or who calls may do anything."""
    user = user_of(call)
    if user.id != call.user.id and not may(
        call.context.state, call.user, permit="configure_engine", on=("system", SYSTEM)
    ):
        raise Forbidden()
    return user


def _key(call: Call, user: User) -> str:
    key = call.id("key")
    if key not in user.ssh_keys:
        raise NotFound(call.path)
    return key


def _content(call: Call, action: str) -> str:
    content = call.body.text("content")
    if not content:
        raise incomplete("SshPublicKey", "content", action)
    for line in filter(None, map(str.strip, content.splitlines())):
        try:
            load_ssh_public_key(line.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise invalid(f"Cannot {action} {_PROPERTY}. The given SSH public key is invalid.") from None
    return content


def _show(user: User, key: str) -> Entity:
    fields: dict[str, Value] = {"content": user.ssh_keys[key], "user": link_to("user", user.id)}
    return Entity("ssh_public_key", fields, id=key, href=address("users", user.id, "sshpublickeys", key))
