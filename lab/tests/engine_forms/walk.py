# SPDX-License-Identifier: GPL-3.0-or-later
"""A walk through the lab from the API's root along every link."""

from __future__ import annotations

import re
from collections import deque
from typing import Any
from xml.etree import ElementTree as ET

import httpx
from lab.tests.engine_forms.documents import Judge, actions, addresses

ROOT = "/ovirt-engine/api"
_JSON = {"Accept": "application/json"}
# What stands in templates of addresses, such as `events;from={event_id}?search={query}`.
_PLACES = {"{query}": "", "{event_id}": "0"}


# Besides the links: what is shown on demand.
_MORE = (
    "vms?all_content=true",
    "vms?follow=disk_attachments.disk.storage_domains,nics.vnic_profile,snapshots.disks,tags,cluster.mac_pool,host",
    "disks?follow=disk_snapshots,permissions.role,storage_domains.data_centers",
    "clusters?follow=affinity_groups.vms,networks,data_center",
    "jobs?follow=steps,owner",
    "templates?follow=disk_attachments.disk",
)


class Walk:
    """`faults` gathers what is wrong on the way; `seen` are the addresses met."""

    def __init__(self, http: httpx.Client, judge: Judge) -> None:
        self._http = http
        self._judge = judge
        self._todo = deque([ROOT, *(f"{ROOT}/{more}" for more in _MORE)])
        self.seen = {ROOT}
        self.actions: set[str] = set()
        self.faults: set[str] = set()

    def go(self) -> None:
        """Visit everything there is."""
        while self._todo:
            self._visit(self._todo.popleft())
        for href in self.actions:
            status = self._http.get(self._http.base_url.join(href)).status_code
            if status != 405:
                self.faults.add(f"the action {href} is answered with {status} where 405 is right for GET")
        self.faults |= self._judge.faults

    def _visit(self, href: str) -> None:
        path = href
        for place, value in _PLACES.items():
            path = path.replace(place, value)
        url = self._http.base_url.join(path)
        answer = self._http.get(url)
        if answer.status_code != 200:
            self.faults.add(f"{href} leads to {answer.status_code}")
            return
        self._judge.followed = frozenset(re.split("[.,]", url.params.get("follow", "")))
        document = ET.fromstring(answer.content)
        expected = self._judge.document(document)
        given = self._http.get(url, headers=_JSON).json()
        if _still(expected) != _still(given):
            self.faults.add(f"{href} is not the same in JSON: {_difference(_still(expected), _still(given))}")
        self.actions.update(actions(document))
        for address in addresses(document):
            if address not in self.seen:
                self.seen.add(address)
                self._todo.append(address)


def _still(tree: Any) -> Any:
    """Without what changes from one request to the next: the time now, and how long a VM has run."""
    if isinstance(tree, list):
        return [_still(item) for item in tree]
    if not isinstance(tree, dict) or tree.get("name") == "elapsed.time":
        return None if isinstance(tree, dict) else tree
    left_out = {"time"} if "special_objects" in tree else set()
    return {name: _still(value) for name, value in tree.items() if name not in left_out}


def _difference(expected: Any, given: Any) -> str:
    """The first place where two trees differ, for a message."""
    if isinstance(expected, dict) and isinstance(given, dict):
        for name in (*expected, *given):
            if expected.get(name) != given.get(name):
                return f"{name}: {_difference(expected.get(name), given.get(name))}"
    if isinstance(expected, list) and isinstance(given, list):
        for one, other in zip(expected, given, strict=False):
            if one != other:
                return _difference(one, other)
    return f"{expected!r} in XML, {given!r} in JSON"
