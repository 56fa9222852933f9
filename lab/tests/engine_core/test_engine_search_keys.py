# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches by the words of objects, and by those of the objects they go with."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

JSON = {"Accept": "application/json"}


@pytest.mark.parametrize(
    ("collection", "search", "found"),
    [
        ("vms", "host.name=host1", ["web"]),
        ("vms", "on_host=host1 and status=up", ["web"]),
        ("vms", "templates.name=Blank", ["web", "db"]),
        ("vms", "storage.name=data and vcpus=1", ["web", "db"]),
        ("hosts", "vms.name=web", ["host1"]),
        ("hosts", "vm.status=down", []),
        ("hosts", "active_vms=1", ["host1"]),
        ("templates", "vm.name=web", ["Blank"]),
        ("templates", "name=Blank and datacenter=Default", ["Blank"]),
        ("disks", "name=web_data and Storage.name=data and vm_names=web", ["web_data"]),
        ("disks", "number_of_vms=1 and datacenter.name=Default and format=raw", ["web_data"]),
        ("datacenters", "Clusters.name=Default", ["Default"]),
        ("datacenters", "network.name=ovirtmgmt", ["Default"]),
        ("clusters", "datacenter.name=Default", ["Default"]),
        ("storagedomains", "cluster.name=Default and name=data*", ["data", "data2"]),
        ("networks", "cluster_network.cluster_name=Default", ["ovirtmgmt"]),
    ],
)
def test_finds(http: httpx.Client, collection: str, search: str, found: list[str]) -> None:
    answer = http.get(collection, params={"search": search}, headers=JSON)
    assert answer.status_code == 200, answer.text
    members = next(iter(answer.json().values()), [])
    assert [item["name"] for item in members] == found


def test_a_search_for_a_text_looks_at_the_objects_own_words(http: httpx.Client) -> None:
    found: dict[str, Any] = http.get("hosts", params={"search": "host1"}, headers=JSON).json()
    assert [host["name"] for host in found["host"]] == ["host1"]
    assert http.get("hosts", params={"search": "web"}, headers=JSON).json() == {}


@pytest.mark.parametrize("search", ["vms.color=red", "cluster.host=a", "datacenters.name=a"])
def test_refuses(http: httpx.Client, search: str) -> None:
    assert http.get("hosts", params={"search": search}).status_code == 400
