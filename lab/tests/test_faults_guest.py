# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults as a guest feels them: no space pauses its VM, a power-off from inside ends it."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ovirtlab import teardown
from ovirtlab.faults.client import Faults
from ovirtlab.places import Places
from ovirtlab.remote import call
from ovirtlab.starting import Wanted, start

pytestmark = [
    pytest.mark.lab,
    pytest.mark.guest,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("needs_isolation"),
]
ENVIRONMENT = """
hosts: [{name: alpha}]
time_scale: 20
storage_domains: [{name: small, size: 512 MiB}]
vms:
  - {name: web, guest: linux, memory: 128 MiB, disks: [{size: 1 GiB, backup: incremental}]}
"""
DEADLINE = 30.0


@pytest.fixture
def facts() -> Iterator[dict[str, Any]]:
    directory = Path(tempfile.mkdtemp(prefix="ovl-"))
    environment = directory.with_suffix(".yaml")
    environment.write_text(ENVIRONMENT)
    try:
        yield start(directory, Wanted(environment=environment), say=lambda _: None)
    finally:
        teardown.tear_down(directory)
        environment.unlink()
        shutil.rmtree(directory, ignore_errors=True)


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


def test_a_guest_without_space_is_paused_and_goes_on_when_there_is_some(facts: dict[str, Any]):
    faults, places = Faults.of(facts), Places(Path(facts["ca_file"]).parent.parent)
    with httpx.Client(
        base_url=f"{facts['engine_url']}/",
        auth=(facts["username"], facts["password"]),
        headers={"Accept": "application/json"},
        verify=ssl.create_default_context(cafile=facts["ca_file"]),
    ) as client:
        vm = f"vms/{facts['vms'][0]['id']}"

        def state() -> str:
            return str(client.get(vm).json()["status"])

        done: list[int] = []

        def write() -> None:
            words = ["/bin/sh", "-c", "dd if=/dev/urandom of=/data/file bs=1M count=32 && sync"]
            done.append(call(places, "POST", "vms", "web", "exec", body={"argv": words})["status"])

        faults.do("storage-full", domain="small", leave=1 << 20)
        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        wait(lambda: state() == "paused")
        codes = [int(event["code"]) for event in client.get("events?max=20").json()["event"]]
        assert 138 in codes  # paused due to no storage space
        faults.clear()
        client.post(f"{vm}/start", json={}).raise_for_status()
        wait(lambda: state() == "up")
        writing.join(DEADLINE)
        assert done == [0]

        faults.do("vm-power-off", vm="web")
        wait(lambda: state() == "down")
        events = client.get("events?max=20").json()["event"]
        assert 61 in [int(event["code"]) for event in events]  # is down, by itself
        faults.clear()
        wait(lambda: state() == "up")
