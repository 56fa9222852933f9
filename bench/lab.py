# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the lab: time to start, memory, API calls a second of one core, and what a VM without a guest costs a test.

`python bench/lab.py [--environment bench/lab.yaml] [--calls N] [--vms N]`. The first run on a machine also makes images
and saved states of guests. Memory is the proportional set size of all processes of the lab.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:] = sys.path[1:]  # this folder's copy.py must not stand in for Python's own module of that name

import argparse
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ovirtlab import ledger, teardown
from ovirtlab.starting import Wanted, start

_DEADLINE = 60.0
_BLANK = "00000000-0000-0000-0000-000000000000"


def main() -> None:
    """Measure and print."""
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="ovl-"))
    begin = time.monotonic()
    try:
        facts = start(directory, Wanted(environment=options.environment), say=lambda line: _say(f"  {line}"))
        _say(f"start: {time.monotonic() - begin:.1f} s, {len(facts['hosts'])} hosts, {len(facts['vms'])} VMs")
        count, memory = _memory(directory)
        _say(f"memory: {memory / (1 << 30):.2f} GiB in {count} processes")
        with _client(facts) as client:
            _calls(client, facts, count=options.calls)
            _vms(client, count=options.vms)
    finally:
        begin = time.monotonic()
        teardown.tear_down(directory)
    _say(f"end: {time.monotonic() - begin:.1f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path(__file__).with_name("lab.yaml"))
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--vms", type=int, default=5)
    return parser.parse_args()


def _memory(directory: Path) -> tuple[int, int]:
    """How many processes the lab has, and their proportional set size in bytes."""
    sign = f"{ledger.LAB_VARIABLE}={ledger.lab_id(directory)}".encode()
    sizes = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and sign in (process / "environ").read_bytes().split(b"\0"):
                lines = (process / "smaps_rollup").read_text().splitlines()
                sizes.append(next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")))
        except (OSError, StopIteration):  # it has ended meanwhile, or is a kernel thread
            continue
    return len(sizes), sum(sizes)


@contextmanager
def _client(facts: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client with a token, on one connection, as a program that polls has."""
    trusted = ssl.create_default_context(cafile=facts["ca_file"])
    with httpx.Client(base_url=f"{facts['engine_url']}/", verify=trusted, timeout=_DEADLINE) as client:
        login = {"grant_type": "password", "scope": "ovirt-app-api"}
        login |= {"username": facts["username"], "password": facts["password"]}
        where = facts["engine_url"].removesuffix("/api") + "/sso/oauth/token"
        token = client.post(where, data=login, headers={"Accept": "application/json"}).json()["access_token"]
        client.headers.update({"Authorization": f"Bearer {token}", "Accept": "application/json"})
        yield client


def _calls(client: httpx.Client, facts: dict[str, Any], *, count: int) -> None:
    """Poll as a client does; the processor time is the engine's own, so the figure is that of one core."""
    vm = facts["vms"][0]
    paths = [f"vms/{vm['id']}", f"disks/{vm['disks'][0]['id']}", f"vms/{vm['id']}/backups", "hosts", "jobs?max=10"]
    for path in [*paths, "vms"]:
        before, begin = _processor_time(facts["pid"]), time.monotonic()
        for _ in range(count // len(paths)):
            client.get(path).raise_for_status()
        spent, wall = _processor_time(facts["pid"]) - before, time.monotonic() - begin
        done = count // len(paths)
        shown = path.replace(vm["id"], "{vm}").replace(vm["disks"][0]["id"], "{disk}")
        _say(f"calls: {done / max(spent, 0.01):5.0f} a second of one core, {done / wall:5.0f} one by one: GET {shown}")


def _processor_time(pid: int) -> float:
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _vms(client: httpx.Client, *, count: int) -> None:
    """Make and start VMs without a guest, with a disk each, as a test's set-up does; then remove them."""
    cluster = client.get("clusters").json()["cluster"][0]["id"]
    domain = client.get("storagedomains").json()["storage_domain"][0]["id"]
    times = []
    for number in range(count):
        begin = time.monotonic()
        wanted = {"name": f"bench{number}", "cluster": {"id": cluster}, "template": {"id": _BLANK}}
        vm = _posted(client, "vms", wanted)["id"]
        _wait(client, f"vms/{vm}", "down")
        disk = {"format": "cow", "provisioned_size": 1 << 30, "storage_domains": {"storage_domain": [{"id": domain}]}}
        attachment = {"interface": "virtio", "active": True, "bootable": True, "disk": disk}
        made = _posted(client, f"vms/{vm}/diskattachments", attachment)
        _wait(client, f"disks/{made['disk']['id']}", "ok")
        _posted(client, f"vms/{vm}/start", {})
        _wait(client, f"vms/{vm}", "up")
        times.append(time.monotonic() - begin)
        _posted(client, f"vms/{vm}/stop", {"force": True})
        _wait(client, f"vms/{vm}", "down")
        client.delete(f"vms/{vm}").raise_for_status()
    _say(f"VM without a guest, made with a disk and started: {max(times):.2f} s at most, {min(times):.2f} s at least")


def _posted(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    if answer.is_error:
        raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
    document: dict[str, Any] = answer.json()
    return document


def _wait(client: httpx.Client, path: str, status: str) -> None:
    end = time.monotonic() + _DEADLINE
    while client.get(path).json()["status"] != status:
        if time.monotonic() > end:
            raise TimeoutError(f"{path} was not {status} within {_DEADLINE:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
