# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that move between the hosts of a whole lab, over its network, by orders to its engine."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from ovirtlab.remote import call

from .running_lab import DEADLINE, Lab, running_lab, wait

pytestmark = [
    pytest.mark.lab,
    pytest.mark.guest,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("needs_isolation"),
    pytest.mark.xdist_group("migration"),
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
FAILED = 120


@pytest.fixture(scope="module")
def lab(needs_isolation: None) -> Iterator[Lab]:
    with running_lab(ENVIRONMENT) as started:
        yield started


def is_at(lab: Lab, vm: str, host: str) -> bool:
    """Whether a VM is up at a host, by what the engine says."""
    found = lab.http.get(f"vms/{lab.vm(vm)['id']}").json()
    return bool(found["status"] == "up" and found["host"]["id"] == lab.host(host)["id"])


def migrate(lab: Lab, vm: str, host: str) -> None:
    lab.http.post(f"vms/{lab.vm(vm)['id']}/migrate", json={"host": {"name": host}}).raise_for_status()


def move(lab: Lab, vm: str, host: str) -> None:
    migrate(lab, vm, host)
    wait(lambda: is_at(lab, vm, host))


@contextmanager
def moving(lab: Lab, vm: str, host: str, *, megabits: int = 8) -> Iterator[None]:
    """A migration that takes its time; in the block its memory is on the way."""
    limit(lab, megabits)
    try:
        migrate(lab, vm, host)
        wait(lambda: progress(lab, vm) > 0)
        assert lab.state(vm) == "migrating"
        yield
    finally:
        limit(lab, 0)


def limit(lab: Lab, megabits: int) -> None:
    """How much of the network a migration may take, 0 for all."""
    cluster = lab.http.get("clusters").json()["cluster"][0]["id"]
    bandwidth = {"assignment_method": "custom" if megabits else "auto", "custom_value": str(megabits)}
    lab.http.put(f"clusters/{cluster}", json={"migration": {"bandwidth": bandwidth}}).raise_for_status()


def progress(lab: Lab, vm: str) -> float:
    found = lab.http.get(f"vms/{lab.vm(vm)['id']}/statistics").json()["statistic"]
    value = next(item for item in found if item["name"] == "migration.progress")
    return float(value["values"]["value"][0]["datum"])


def guest(lab: Lab, line: str) -> str:
    """What a line of shell prints in the guest."""
    done = call(lab.places, "POST", "vms", "web", "exec", body={"argv": ["/bin/sh", "-c", line]})
    assert done["status"] == 0, done
    return b64decode(done["stdout"]).decode().strip()


def dirty(lab: Lab, vm: str, backup: str, host: str) -> list[tuple[int, int]]:
    """What a backup has to copy, as the daemon of the VM's host tells clients."""
    transfer = lab.begin_transfer(vm, backup)
    found = lab.http.get(transfer).json()
    assert found["host"]["id"] == lab.host(host)["id"]
    answer = httpx.get(f"{found['transfer_url']}/extents?context=dirty", verify=lab.trusted, timeout=DEADLINE)
    extents: list[dict[str, Any]] = answer.raise_for_status().json()
    lab.http.post(f"{transfer}/finalize", json={}).raise_for_status()
    wait(lambda: lab.phase(transfer) == "finished_success")
    return [(extent["start"], extent["length"]) for extent in extents if extent["dirty"]]


def test_an_incremental_after_a_migration_has_the_writes_of_both_hosts(lab: Lab):
    lab.io("plain", "write -P 1 0 1M")
    phase, first = lab.back_up("plain")
    assert phase == "succeeded"
    lab.io("plain", "write -P 2 10M 64k")
    move(lab, "plain", "beta")
    lab.io("plain", "write -P 3 20M 128k")
    backup = lab.begin_backup("plain", first)
    assert dirty(lab, "plain", backup, "beta") == [(10 * MIB, 65536), (20 * MIB, 131072)]
    content = lab.download("plain", backup)
    assert content[10 * MIB : 10 * MIB + 65536] == b"\2" * 65536
    assert content[20 * MIB : 20 * MIB + 131072] == b"\3" * 131072
    second = lab.http.get(backup).json()["to_checkpoint_id"]
    assert lab.end_backup(backup) == "succeeded"
    move(lab, "plain", "alpha")
    backup = lab.begin_backup("plain", second)
    assert dirty(lab, "plain", backup, "alpha") == []
    assert lab.end_backup(backup) == "succeeded"


def test_a_guest_moves_while_its_programs_run(lab: Lab):
    count = "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; usleep 50000; done"
    guest(lab, f"({count}) >/dev/null 2>&1 & echo $! >/tmp/pid")
    move(lab, "web", "beta")
    before = int(guest(lab, "cat /tmp/n") or 0)
    wait(lambda: int(guest(lab, "cat /tmp/n") or 0) > before)
    move(lab, "web", "alpha")
    guest(lab, "kill $(cat /tmp/pid)")


@pytest.mark.parametrize(
    ("fault", "parameters"), [("network-cut", {"host": "beta", "how": "down"}), ("host-kill", {"host": "beta"})]
)
def test_a_migration_that_is_cut_leaves_the_guest_where_it_was(lab: Lab, fault: str, parameters: dict[str, str]):
    guest(lab, "echo here >/tmp/mark")
    before = lab.last_event()
    with moving(lab, "web", "beta"), lab.faults.during(fault, **parameters):
        wait(lambda: is_at(lab, "web", "alpha"))
        assert FAILED in lab.codes(before)
        assert guest(lab, "cat /tmp/mark") == "here"
        assert lab.back_up("web")[0] == "succeeded"
    move(lab, "web", "beta")
    assert guest(lab, "cat /tmp/mark") == "here"
    move(lab, "web", "alpha")


def test_a_migration_goes_on_over_a_restart_of_the_engine(lab: Lab):
    guest(lab, "echo here >/tmp/mark")
    with moving(lab, "web", "beta", megabits=64):
        lab.faults.do("engine-restart")
        assert lab.state("web") == "migrating"
    wait(lambda: is_at(lab, "web", "beta"))
    assert guest(lab, "cat /tmp/mark") == "here"
    assert lab.back_up("web")[0] == "succeeded"
    move(lab, "web", "alpha")


def test_a_migration_that_is_cut_after_a_restart_of_the_engine_leaves_the_guest_where_it_was(lab: Lab):
    guest(lab, "echo here >/tmp/mark")
    before = lab.last_event()
    with moving(lab, "web", "beta"):
        lab.faults.do("engine-restart")
        with lab.faults.during("network-cut", host="beta", how="down"):
            wait(lambda: is_at(lab, "web", "alpha"))
    wait(lambda: FAILED in lab.codes(before))
    assert guest(lab, "cat /tmp/mark") == "here"
    move(lab, "web", "beta")
    move(lab, "web", "alpha")
