# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as it is used: by playbooks with a login that ends, and as an inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.tests.ansible_modules.collection import Modules, login, play, program, task


def test_a_playbook(facts: dict[str, Any], tmp_path: Path) -> None:
    said = play(
        tmp_path,
        facts,
        task("vm", name="made", cluster="Default", memory="128MiB", state="stopped"),
        task("nic", name="n1", vm="made", interface="virtio", profile="ovirtmgmt", network="ovirtmgmt"),
        task("tag", name="t1", vms=["made"]),
        task("vm_info", pattern="tag=t1"),
        task("tag", name="t1", state="absent"),
        task("vm", name="made", state="absent"),
    )
    assert "changed=5" in said


def test_a_token_that_has_ended_is_good_for_nothing(facts: dict[str, Any], modules: Modules) -> None:
    token = modules.run("auth", **login(facts))["ansible_facts"]["ovirt_auth"]
    with_token = {"url": facts["engine_url"], "ca_file": facts["ca_file"], "token": token["token"]}
    assert modules.run("cluster_info", auth=with_token)["ovirt_clusters"]
    modules.run("auth", state="absent", ovirt_auth=token)
    assert modules.attempt("cluster_info", auth=with_token)["failed"]


def test_an_inventory(facts: dict[str, Any], modules: Modules, tmp_path: Path) -> None:
    modules.changes("tag", name="dev", vms=["plain"])
    cluster = {"name": "pair", "cluster": "Default"}
    modules.changes("affinity_group", vms=["plain"], **cluster)
    source = {
        "plugin": "ovirt.ovirt.ovirt",
        "ovirt_url": facts["engine_url"],
        "ovirt_cafile": facts["ca_file"],
        "ovirt_username": facts["username"],
        "ovirt_password": facts["password"],
        "ovirt_query_filter": {"search": "name=plain or name=idle", "case_sensitive": False, "max": 15},
        "keyed_groups": [{"key": "status", "prefix": "status"}],
        "groups": {"dev": "'dev' in tags"},
    }
    path = tmp_path / "lab.ovirt.yml"
    path.write_text(json.dumps(source))
    found = json.loads(program("ansible-inventory", tmp_path, "-i", path, "--list"))
    assert (found["dev"]["hosts"], found["status_up"]["hosts"]) == (["plain"], ["plain"])
    known = {name: _plain(value) for name, value in found["_meta"]["hostvars"]["plain"].items()}
    assert (known["host"], known["cluster"], known["template"]) == ("alpha", "Default", "Blank")
    assert (known["affinity_groups"], known["statistics"]["memory.installed"] > 0) == (["pair"], True)
    modules.changes("affinity_group", state="absent", **cluster)
    modules.changes("tag", name="dev", state="absent")


def _plain(value: Any) -> Any:
    """A value of a variable of an inventory, which marks texts that are no templates."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if "__ansible_unsafe" in value else {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
