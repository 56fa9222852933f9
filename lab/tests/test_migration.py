# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that move between the hosts of a whole lab, over its network, by orders to its Engine."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
hosts: [{name: alpha}, {name: beta}]
time_scale: 20
settings: {migration_progress_timeout: 120}
vms:
  - {name: web, host: alpha, guest: linux, memory: 128 MiB, disks: [{size: 256 MiB, backup: incremental}]}
  - {name: plain, host: alpha, disks: [{size: 64 MiB, backup: incremental}]}
"""
MIB = 1 << 20
DEADLINE = 60.0


class Lab:
    """A running lab with a client of its Engine."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.faults = Faults.of(facts)
        self.places = Places(Path(facts["ca_file"]).parent.parent)
        self.trusted = ssl.create_default_context(cafile=facts["ca_file"])
        self.http = httpx.Client(
            base_url=f"{facts['engine_url']}/",
            auth=(facts["username"], facts["password"]),
            headers={"Accept": "application/json"},
            verify=self.trusted,
            timeout=30,
        )
        self.hosts = {host["id"]: host["name"] for host in facts["hosts"]}

    def vm(self, name: str) -> dict[str, Any]:
        return next(vm for vm in self.facts["vms"] if vm["name"] == name)

    def where(self, name: str) -> tuple[str, str]:
        """Status and host of a VM."""
        found = self.http.get(f"vms/{self.vm(name)['id']}").json()
        return found["status"], self.hosts[found["host"]["id"]] if "host" in found else ""

    def migrate(self, name: str, host: str) -> None:
        self.http.post(f"vms/{self.vm(name)['id']}/migrate", json={"host": {"name": host}}).raise_for_status()

    def move(self, name: str, host: str) -> None:
        self.migrate(name, host)
        wait(lambda: self.where(name) == ("up", host))

    @contextmanager
    def moving(self, name: str, host: str) -> Iterator[None]:
        """A migration that takes its time; in the block its memory is on the way."""
        self.limit(8)
        try:
            self.migrate(name, host)
            wait(lambda: self.progress(name) > 0)
            assert self.where(name)[0] == "migrating"
            yield
        finally:
            self.limit(0)

    def limit(self, megabits: int) -> None:
        cluster = self.http.get("clusters").json()["cluster"][0]["id"]
        method = "custom" if megabits else "auto"
        bandwidth = {"assignment_method": method, "custom_value": str(megabits)}
        self.http.put(f"clusters/{cluster}", json={"migration": {"bandwidth": bandwidth}}).raise_for_status()

    def progress(self, name: str) -> float:
        found = self.http.get(f"vms/{self.vm(name)['id']}/statistics").json()["statistic"]
        value = next(item for item in found if item["name"] == "migration.progress")
        return float(value["values"]["value"][0]["datum"])

    def codes(self) -> list[int]:
        return [int(event["code"]) for event in self.http.get("events?max=50").json()["event"]]

    def guest(self, line: str) -> str:
        """Run a line of shell in the guest."""
        done = call(self.places, "POST", "vms", "web", "exec", body={"argv": ["/bin/sh", "-c", line]})
        assert done["status"] == 0, done
        return b64decode(done["stdout"]).decode().strip()

    def io(self, vm: str, command: str) -> None:
        call(self.places, "POST", "vms", vm, "io", body={"target": "vda", "command": command})

    @contextmanager
    def backup(self, vm: str, since: str = "") -> Iterator[dict[str, Any]]:
        """A backup of the first disk, ready in the block and ended after it."""
        where = f"vms/{self.vm(vm)['id']}/backups"
        body: dict[str, Any] = {"disks": {"disk": [{"id": self.vm(vm)["disks"][0]["id"]}]}}
        if since:
            body["from_checkpoint_id"] = since
        one = f"{where}/{self.http.post(where, json=body).raise_for_status().json()['id']}"
        wait(lambda: self.http.get(one).json()["phase"] in ("ready", "failed"))
        yield self.http.get(one).json()
        self.http.post(f"{one}/finalize", json={}).raise_for_status()
        wait(lambda: self.http.get(one).json()["phase"] in ("succeeded", "failed"))
        assert self.http.get(one).json()["phase"] == "succeeded"

    def dirty(self, vm: str, backup: str) -> list[tuple[int, int]]:
        """What a backup has to copy, as the daemon of the VM's host tells clients."""
        disk = self.vm(vm)["disks"][0]["id"]
        wanted = {"disk": {"id": disk}, "backup": {"id": backup}, "direction": "download", "format": "raw"}
        one = f"imagetransfers/{self.http.post('imagetransfers', json=wanted).raise_for_status().json()['id']}"
        wait(lambda: self.http.get(one).json()["phase"] == "transferring")
        found = self.http.get(one).json()
        assert self.hosts[found["host"]["id"]] == self.where(vm)[1]
        answer = httpx.get(f"{found['transfer_url']}/extents?context=dirty", verify=self.trusted, timeout=30)
        extents = answer.raise_for_status().json()
        self.http.post(f"{one}/finalize", json={}).raise_for_status()
        wait(lambda: self.http.get(one).json()["phase"] == "finished_success")
        return [(extent["start"], extent["length"]) for extent in extents if extent["dirty"]]


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(needs_isolation: None) -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="ovl-"))
    environment = directory.with_suffix(".yaml")
    environment.write_text(ENVIRONMENT)
    try:
        lab = Lab(start(directory, Wanted(environment=environment), say=lambda _: None))
        yield lab
        lab.http.close()
    finally:
        teardown.tear_down(directory)
        environment.unlink()
        shutil.rmtree(directory, ignore_errors=True)


def test_an_incremental_after_a_migration_has_the_writes_of_both_hosts(lab: Lab):
    lab.io("plain", "write -P 1 0 1M")
    with lab.backup("plain") as full:
        pass
    lab.io("plain", "write -P 2 10M 64k")
    lab.move("plain", "beta")
    lab.io("plain", "write -P 3 20M 128k")
    with lab.backup("plain", full["to_checkpoint_id"]) as increment:
        assert lab.dirty("plain", increment["id"]) == [(10 * MIB, 65536), (20 * MIB, 131072)]
    lab.move("plain", "alpha")
    with lab.backup("plain", increment["to_checkpoint_id"]) as nothing:
        assert lab.dirty("plain", nothing["id"]) == []


def test_a_guest_moves_while_its_programs_run(lab: Lab):
    lab.guest("(n=0; while :; do n=$((n+1)); echo $n >/tmp/n; usleep 50000; done) >/dev/null 2>&1 & echo $! >/tmp/pid")
    lab.move("web", "beta")
    before = int(lab.guest("cat /tmp/n"))
    wait(lambda: int(lab.guest("cat /tmp/n")) > before)
    lab.move("web", "alpha")
    lab.guest("kill $(cat /tmp/pid)")
    assert 63 in lab.codes()


@pytest.mark.parametrize(
    ("fault", "parameters"), [("network-cut", {"host": "beta", "how": "down"}), ("host-kill", {"host": "beta"})]
)
def test_a_migration_that_is_cut_leaves_the_guest_where_it_was(lab: Lab, fault: str, parameters: dict[str, str]):
    lab.guest("echo here >/tmp/mark")
    before = lab.codes().count(120)
    with lab.moving("web", "beta"), lab.faults.during(fault, **parameters):
        wait(lambda: lab.where("web") == ("up", "alpha"))
        assert lab.guest("cat /tmp/mark") == "here"
        with lab.backup("web"):
            pass
    assert lab.codes().count(120) == before + 1
    lab.move("web", "beta")
    assert lab.guest("cat /tmp/mark") == "here"
    lab.move("web", "alpha")
