# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the Ansible collection ovirt.ovirt, as they are, against a lab with a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.tests.conftest import nothing_left, short_directory

from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("needs_isolation")]
ANSIBLE = Path(__file__).parents[2] / ".cache/ansible-venv"
ENVIRONMENT = "hosts: [{name: alpha}]\nvms: [{name: plain, disks: [{name: d1, size: 16 MiB}]}]\n"
# Listings, and the arguments of those that need some.
INFO: dict[str, dict[str, Any]] = {
    "vm": {"pattern": "name=plain"},
    "disk": {},
    "cluster": {},
    "nic": {"vm": "plain"},
    "snapshot": {"vm": "plain"},
    "vm_os": {"auth": "{{ ovirt_auth }}"},  # not in the collection's action group
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    if not (ANSIBLE / "stamp").exists():
        pytest.skip("the ovirt.ovirt collection is not here: run `setup/ansible-for-tests`")
    with short_directory() as directory:
        environment = tmp_path_factory.mktemp("environment") / "one.yaml"
        environment.write_text(ENVIRONMENT)
        yield start(directory, Wanted(environment=environment), say=lambda _: None)
        teardown.tear_down(directory)
        nothing_left(directory)


def play(facts: dict[str, Any], folder: Path, *tasks: dict[str, Any]) -> str:
    """Run modules one after another, each of which must succeed."""
    login = {
        name: facts[key] for name, key in (("url", "engine_url"), ("username", "username"), ("ca_file", "ca_file"))
    }
    head: dict[str, Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    auth = {"ovirt.ovirt.ovirt_auth": {**login, "password": facts["password"]}}
    defaults = {"group/ovirt.ovirt.ovirt": {"auth": "{{ ovirt_auth }}"}}
    book = folder / "book.yml"
    book.write_text(json.dumps([{**head, "tasks": [auth]}, {**head, "module_defaults": defaults, "tasks": tasks}]))
    environment = {
        **os.environ,
        "HOME": str(folder),
        "ANSIBLE_COLLECTIONS_PATH": str(ANSIBLE / "collections"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_NOCOLOR": "1",
    }
    argv = [ANSIBLE / "bin/ansible-playbook", "-i", "localhost,", book]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def module(kind: str, /, **arguments: Any) -> dict[str, Any]:
    return {f"ovirt.ovirt.ovirt_{kind}": arguments}


def test_listings(facts: dict[str, Any], tmp_path: Path) -> None:
    play(facts, tmp_path, *(module(f"{name}_info", **arguments) for name, arguments in INFO.items()))


def test_a_vm_with_its_tag_and_nic(facts: dict[str, Any], tmp_path: Path) -> None:
    said = play(
        facts,
        tmp_path,
        module("vm", name="made", cluster="Default", memory="128MiB", state="stopped"),
        module("nic", name="n1", vm="made", interface="virtio", profile="ovirtmgmt", network="ovirtmgmt"),
        module("tag", name="t1", vms=["made"]),
        module("tag", name="t1", state="absent"),
        module("vm", name="made", state="absent"),
    )
    assert "changed=5" in said


def test_a_disk_that_is_uploaded_and_downloaded(facts: dict[str, Any], tmp_path: Path) -> None:
    image, back = tmp_path / "image.qcow2", tmp_path / "back.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True, timeout=30)
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 2M", image]
    subprocess.run(argv, check=True, timeout=30, stdout=subprocess.DEVNULL)
    disk = {"name": "up", "storage_domain": "data", "format": "cow"}
    said = play(
        facts,
        tmp_path,
        module("disk", **disk, upload_image_path=str(image)),
        module("disk", **disk, download_image_path=str(back)),
        module("disk", name="up", state="absent"),
    )
    assert "failed=0" in said
    subprocess.run(["qemu-img", "compare", "-q", image, back], check=True, timeout=30)


def test_events_and_jobs(facts: dict[str, Any], tmp_path: Path) -> None:
    said = play(
        facts,
        tmp_path,
        module("event", description="hello", origin="mon", custom_id=77, severity="warning"),
        module("job", description="j1", steps=[{"description": "A"}, {"description": "B"}]),
        module("job", description="j1", steps=[{"description": "A", "state": "finished"}]),
        module("job", description="j1", state="finished"),
    )
    assert "changed=4" in said
