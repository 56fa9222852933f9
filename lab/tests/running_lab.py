# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole lab for tests of faults: a client of its engine, and the acts of a backup as clients do them."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ovirtlab import teardown
from ovirtlab.faults.client import Faults
from ovirtlab.places import Places
from ovirtlab.remote import call
from ovirtlab.starting import Wanted, start

from .conftest import nothing_left, short_directory

DEADLINE = 60.0
CHUNK = 8 << 20


class Lab:
    """A running lab, its faults, and a client of its engine."""

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
            timeout=DEADLINE,
        )

    def status(self) -> Any:
        return call(self.places, "GET", "status")

    def where(self, vm: str) -> str:
        """Name of the host a VM runs on."""
        return next(str(item["host"]) for item in self.status()["vms"] if item["name"] == vm)

    def vm(self, name: str) -> dict[str, Any]:
        return next(vm for vm in self.facts["vms"] if vm["name"] == name)

    def state(self, name: str) -> str:
        return str(self.http.get(f"vms/{self.vm(name)['id']}").json()["status"])

    def start(self, name: str) -> None:
        """Start a VM and wait until it is up."""
        self.http.post(f"vms/{self.vm(name)['id']}/start", json={}).raise_for_status()
        wait(lambda: self.state(name) == "up")

    def host(self, name: str) -> dict[str, Any]:
        return next(host for host in self.facts["hosts"] if host["name"] == name)

    def host_status(self, name: str) -> str:
        return str(self.http.get(f"hosts/{self.host(name)['id']}").json()["status"])

    def disk(self, vm: str) -> str:
        """Id of the first disk of a VM."""
        return str(self.vm(vm)["disks"][0]["id"])

    def disk_status(self, vm: str) -> str:
        return str(self.http.get(f"disks/{self.disk(vm)}").json()["status"])

    def io(self, vm: str, command: str) -> str:
        return str(call(self.places, "POST", "vms", vm, "io", body={"target": "vda", "command": command})["output"])

    def codes(self, since: int = 0) -> set[int]:
        """Codes of the events with a higher id than `since`."""
        found = self.http.get("events", params={"from": since}).json().get("event", [])
        return {int(event["code"]) for event in found}

    def last_event(self) -> int:
        return int(self.http.get("events", params={"max": 1}).json()["event"][0]["id"])

    def ask_backup(self, vm: str, since: str = "") -> httpx.Response:
        """Ask for a live (or cold) backup of the first disk of a VM."""
        body: dict[str, Any] = {"disks": {"disk": [{"id": self.disk(vm)}]}}
        if since:
            body["from_checkpoint_id"] = since
        return self.http.post(f"vms/{self.vm(vm)['id']}/backups", params={"legacy": "true"}, json=body)

    def begin_backup(self, vm: str, since: str = "") -> str:
        """Begin one and wait until it is ready; return its path."""
        answer = self.ask_backup(vm, since)
        assert answer.is_success, answer.text
        backup = f"vms/{self.vm(vm)['id']}/backups/{answer.json()['id']}"
        wait(lambda: self.phase(backup) in ("ready", "failed"))
        assert self.phase(backup) == "ready"
        return backup

    def phase(self, path: str) -> str:
        """Phase of a backup or a transfer."""
        return str(self.http.get(path).json()["phase"])

    def end_backup(self, backup: str) -> str:
        """Finalize a backup and return how it ended."""
        self.http.post(f"{backup}/finalize", json={})
        wait(lambda: self.phase(backup) in ("succeeded", "failed"))
        return self.phase(backup)

    def back_up(self, vm: str, since: str = "") -> tuple[str, str]:
        """Make a backup and end it; return its last phase, or why it is refused, and its checkpoint."""
        answer = self.ask_backup(vm, since)
        if answer.is_error:
            wait(lambda: self.no_backup_runs(vm))  # one whose order has failed may be there all the same
            return str(answer.json()["detail"]), ""
        backup = f"vms/{self.vm(vm)['id']}/backups/{answer.json()['id']}"
        wait(lambda: self.phase(backup) in ("ready", "failed"))
        phase = self.end_backup(backup) if self.phase(backup) == "ready" else "failed"
        return phase, str(self.http.get(backup).json().get("to_checkpoint_id", ""))

    def no_backup_runs(self, vm: str) -> bool:
        """Whether all backups of a VM are over."""
        found = self.http.get(f"vms/{self.vm(vm)['id']}/backups").json().get("backup", [])
        return all(backup["phase"] in ("succeeded", "failed") for backup in found)

    def begin_transfer(self, vm: str, backup: str) -> str:
        """Begin to download a disk of a backup; return the transfer's path."""
        body = {
            "backup": {"id": backup.rpartition("/")[2]},
            "disk": {"id": self.disk(vm)},
            "direction": "download",
            "format": "raw",
        }
        answer = self.http.post("imagetransfers", json=body)
        assert answer.is_success, answer.text
        transfer = f"imagetransfers/{answer.json()['id']}"
        wait(lambda: self.phase(transfer) != "initializing")
        assert self.phase(transfer) == "transferring"
        return transfer

    def read(self, transfer: str) -> bytes:
        """All bytes of a transfer."""
        url = self.http.get(transfer).json()["transfer_url"]
        answer = httpx.get(url, verify=self.trusted, timeout=DEADLINE)
        answer.raise_for_status()
        return answer.content

    def download(self, vm: str, backup: str) -> bytes:
        """The content of the first disk of a backup."""
        transfer = self.begin_transfer(vm, backup)
        content = self.read(transfer)
        self.http.post(f"{transfer}/finalize", json={}).raise_for_status()
        wait(lambda: self.phase(transfer).startswith("finished"))
        assert self.phase(transfer) == "finished_success"
        return content


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


@contextmanager
def running_lab(environment: str) -> Iterator[Lab]:
    """A lab for an environment in YAML, which is gone without a trace afterwards."""
    with short_directory() as directory, tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(environment)
        file.flush()
        lab = Lab(start(directory, Wanted(environment=Path(file.name)), say=lambda _: None))
        try:
            yield lab
        finally:
            lab.http.close()
            teardown.tear_down(directory)
        nothing_left(directory)
