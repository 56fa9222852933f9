# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls and what he may do, decided by the Manager's answers to the caller's own token."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import httpx

from overkeep.engine.api import Access, Identity, ObjectKind
from overkeep.engine.cache import Cache
from overkeep.engine.errors import BadAnswer, EngineRefused, NotFoundInEngine, PermissionDenied
from overkeep.engine.site import Site, log_in, log_out
from overkeep.errors import Unauthorized
from overkeep.model import markup

EVERYONE = "eee00000-0000-0000-0000-123456789eee"  # the group that the Manager puts every user in
_SUPER_USER = "SuperUser"
_IDENTITY_SECONDS = 60.0  # a revoked token works here for so long at most
_PERMITS_SECONDS = 30.0
_ROLES_SECONDS = 600.0
_CACHED = 2000
_COLLECTIONS = {ObjectKind.VM: "vms", ObjectKind.CLUSTER: "clusters", ObjectKind.STORAGE_DOMAIN: "storagedomains"}


class OvirtAccess(Access):
    """Reads of the API with the caller's token, kept for a short time. May be used by several threads.

    A permission on an object counts for the caller when it names him, a group of his, or everyone; the Manager lists
    those inherited from cluster, data center and system with the object.
    """

    def __init__(self, url: str, ca_file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._site = Site(url.rstrip("/"), ca_file)
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._people: Cache[str, _Person] = Cache(_IDENTITY_SECONDS, _CACHED, clock=clock)
        self._permits: Cache[tuple[str, ObjectKind, str], frozenset[str]] = Cache(
            _PERMITS_SECONDS, _CACHED, clock=clock
        )
        self._shown: Cache[str, frozenset[str]] = Cache(_PERMITS_SECONDS, _CACHED, clock=clock)
        self._roles: Cache[str, frozenset[str]] = Cache(_ROLES_SECONDS, _CACHED, clock=clock)

    def authenticate(self, token: str) -> Identity:
        """Return who the token belongs to; raise `Unauthorized`."""
        return self._person(token).identity

    def permits(self, token: str, object_id: str, *, of: ObjectKind = ObjectKind.VM) -> frozenset[str]:
        """Return the caller's permits on an object; empty when there is no such object for him."""
        person = self._person(token)
        if not object_id.replace("-", "").isalnum():  # it would lead to another address
            return frozenset()
        path = f"/{_COLLECTIONS[of]}/{object_id}/permissions"
        return self._permits.get((_key(token), of, object_id), lambda: self._read_permits(token, path, person))

    def vms(self, token: str) -> frozenset[str]:
        """Return the ids of the VMs that the Manager shows to the caller."""
        self._person(token)
        return self._shown.get(_key(token), lambda: self._read_vms(token))

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            if self._http is not None:
                self._http.close()
                self._http = None

    def _client(self) -> httpx.Client:
        """Made at the first call, as a missing CA file is an answer to the caller and no reason not to start."""
        with self._lock:
            if self._http is None:
                self._http = self._site.client()
            return self._http

    def _person(self, token: str) -> _Person:
        if not token or not token.isascii() or not token.isprintable():
            raise Unauthorized  # it would not even fit into a header
        return self._people.get(_key(token), lambda: self._read_person(token))

    def _read_person(self, token: str) -> _Person:
        root = self._get(token, "", what="the API")
        user = next(markup.children(root, "effective_user"), None)
        if user is None:
            user = next(markup.children(root, "authenticated_user"), None)
        user_id = markup.attribute(user, "id") if user is not None else ""
        if not user_id:
            raise BadAnswer(url=self._site.url, reason="its root does not tell whose token it was asked with")
        found = self._try(token, f"/users/{user_id}")
        name = (markup.text(found, "user_name") or markup.text(found, "principal")) if found is not None else ""
        own = self._try(token, f"/users/{user_id}/permissions")
        groups = {_linked(permission, "group") for permission in _children(own, "permission")} | _group_ids(found)
        principals = frozenset({user_id, EVERYONE} | groups - {""})
        super_role = self._super_role(token, principals)
        identity = Identity(user_id=user_id, name=name or user_id, admin=bool(super_role))
        return _Person(identity, principals, super_role)

    def _super_role(self, token: str, principals: frozenset[str]) -> str:
        """Return the id of the role SuperUser if the caller has it on the system.

        Asked of the system itself: among a user's own permissions those on networks name no object either.
        """
        roles = _roles_for(principals, self._try(token, "/permissions"))
        return next((role for role in sorted(roles) if self._role_name(token, role) == _SUPER_USER), "")

    def _read_permits(self, token: str, path: str, person: _Person) -> frozenset[str]:
        listed = self._try(token, path)
        if listed is None:
            return frozenset()
        roles = _roles_for(person.principals, listed) | ({person.super_role} - {""})
        return frozenset().union(*(self._role_permits(token, role) for role in roles))

    def _read_vms(self, token: str) -> frozenset[str]:
        return frozenset(markup.attribute(vm, "id") for vm in _children(self._try(token, "/vms"), "vm")) - {""}

    def _role_permits(self, token: str, role_id: str) -> frozenset[str]:
        def read() -> frozenset[str]:
            listed = self._get(token, f"/roles/{role_id}/permits", what=f"role {role_id}")
            return frozenset(markup.text(permit, "name") for permit in markup.children(listed, "permit")) - {""}

        return self._roles.get(role_id, read)

    def _role_name(self, token: str, role_id: str) -> str:
        found = self._try(token, f"/roles/{role_id}") if role_id else None
        return markup.text(found, "name") if found is not None else ""

    def _try(self, token: str, path: str) -> Element | None:
        """Return an answer, None when the Manager says that there is nothing of the kind for this caller."""
        try:
            return self._get(token, path, what=path)
        except EngineRefused:
            return None

    def _get(self, token: str, path: str, *, what: str) -> Element:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/xml", "Version": "4"}
        client = self._client()
        with self._site.reached():
            answer = client.get(self._site.url + path, headers=headers)
        self._site.check_in_service(answer.status_code)
        if answer.status_code == 401:
            raise Unauthorized
        if answer.status_code == 404:
            raise NotFoundInEngine(act=f"show {what}", what=what, words="not found")
        if answer.status_code == 403:
            raise PermissionDenied(act=f"show {what}", words="status 403", username="the caller")
        if answer.status_code == 400:
            raise EngineRefused(act=f"show {what}", words="It answered status 400.")
        if answer.status_code != 200:
            raise BadAnswer(url=self._site.url, reason=f"status {answer.status_code}")
        try:
            return markup.parse(answer.content)
        except markup.BadMarkup as error:
            raise BadAnswer(url=self._site.url, reason=str(error)) from error


class _Person:
    """A caller, the ids whose permissions count for him, and the id of the role SuperUser if he has it."""

    def __init__(self, identity: Identity, principals: frozenset[str], super_role: str) -> None:
        self.identity = identity
        self.principals = principals
        self.super_role = super_role


def login(url: str, ca_file: Path, *, username: str, password: str) -> str:
    """Log a person in with name and password; return the token. Raises `LoginRefused`."""
    return log_in(Site(url.rstrip("/"), ca_file), username, password)


def logout(url: str, ca_file: Path, *, token: str) -> None:
    """Revoke a token; one that the Manager knows no longer is success."""
    log_out(Site(url.rstrip("/"), ca_file), token)


def _key(token: str) -> str:
    """Caches hold no tokens."""
    return hashlib.sha256(token.encode()).hexdigest()


def _linked(element: Element, name: str) -> str:
    found = next(markup.children(element, name), None)
    return markup.attribute(found, "id") if found is not None else ""


def _children(element: Element | None, name: str) -> list[Element]:
    return list(markup.children(element, name)) if element is not None else []


def _roles_for(principals: frozenset[str], permissions: Element | None) -> set[str]:
    """Return the ids of the roles that permissions give to the caller."""
    roles = {
        _linked(permission, "role")
        for permission in _children(permissions, "permission")
        if _linked(permission, "user") in principals or _linked(permission, "group") in principals
    }
    return roles - {""}


def _group_ids(user: Element | None) -> set[str]:
    return {
        markup.attribute(group, "id") for groups in _children(user, "groups") for group in _children(groups, "group")
    }
