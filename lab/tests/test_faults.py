# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand in a whole lab: each really breaks what it says, is shown while in force, and is mended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ovirtlab.fabric.commands import run
from ovirtlab.faults.active import FAULTS
from ovirtlab.remote import LabError

from .running_lab import DEADLINE, Lab, running_lab, wait

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation"), pytest.mark.xdist_group("faults")]
OVIRTLAB = Path(sys.executable).with_name("ovirtlab")
ENVIRONMENT = """
hosts: [{name: alpha}, {name: beta}]
time_scale: 20
storage_domains: [{name: data}, {name: small, size: 24 MiB}]
exports: [{name: backup}, {name: tiny, size: 8 MiB}]
vms:
  - {name: plain, host: alpha, disks: [{name: d1, size: 64 MiB, backup: incremental}]}
  - {name: other, host: beta, disks: [{name: d2, size: 64 MiB, backup: incremental, storage_domain: small}]}
  - {name: idle, running: false, disks: [{name: d3, size: 8 MiB, backup: incremental}]}
"""


@pytest.fixture(scope="module")
def started(needs_isolation: None) -> Iterator[Lab]:
    with running_lab(ENVIRONMENT) as lab:
        yield lab


@pytest.fixture
def lab(started: Lab) -> Iterator[Lab]:
    """The module's lab; whatever a test broke is mended after it, and its VMs run."""
    yield started
    started.faults.clear()
    assert started.faults.active() == []
    assert [started.state(name) for name in ("plain", "other")] == ["up", "up"]


def test_a_killed_vm_is_down_and_started_again_when_cleared(lab: Lab):
    key = lab.faults.do("vm-kill", vm="plain")
    wait(lambda: lab.state("plain") == "down")
    assert [(one["id"], one["name"], one["parameters"]) for one in lab.faults.active()] == [
        (key, "vm-kill", {"vm": "plain"})
    ]
    assert lab.faults.clear(key) == [key]
    assert lab.state("plain") == "up"


def test_a_guest_that_powers_itself_off_keeps_its_bitmaps(lab: Lab):
    phase, checkpoint = lab.back_up("plain")
    assert phase == "succeeded"
    with lab.faults.during("vm-power-off", vm="plain"):
        wait(lambda: lab.state("plain") == "down")
        info = run(["qemu-img", "info", lab.vm("plain")["disks"][0]["path"]])
        assert checkpoint in info
        assert "in-use" not in info


@pytest.mark.parametrize("fault", ["vm-power-off", "vm-kill"])
def test_a_backup_whose_vm_goes_stays_ready_until_somebody_ends_it(lab: Lab, fault: str):
    vm = lab.vm("plain")
    one = lab.begin_backup("plain")
    lab.faults.do(fault, vm="plain")
    wait(lambda: lab.state("plain") == "down")
    found = lab.http.get(one).json()
    assert found["phase"] == "ready"
    assert lab.disk_status("plain") == "locked"
    assert lab.end_backup(one) == "failed"
    assert lab.disk_status("plain") == "ok"
    checkpoints = lab.http.get(f"vms/{vm['id']}/checkpoints").json().get("checkpoint", [])
    assert found["to_checkpoint_id"] not in [checkpoint["id"] for checkpoint in checkpoints]


def test_a_killed_host_takes_its_vms_and_its_daemon_with_it(lab: Lab):
    lab.faults.do("host-kill", host="alpha")
    assert lab.host_status("alpha") == "non_responsive"
    wait(lambda: lab.state("plain") == "down")
    assert lab.state("other") == "up"
    assert [bool(host["imageio"]) for host in lab.status()["hosts"]] == [False, True]
    lab.http.post(f"vms/{lab.vm('plain')['id']}/start", json={})
    wait(lambda: lab.state("plain") == "up")
    assert lab.where("plain") == "beta"
    lab.faults.clear("host-kill")
    assert lab.host_status("alpha") == "up"
    assert all(host["imageio"] for host in lab.status()["hosts"])


@pytest.mark.parametrize("fault", ["bitmap-lose", "bitmap-break"])
def test_no_incremental_is_made_from_a_checkpoint_whose_bitmap_is_gone_or_broken(lab: Lab, fault: str):
    phase, checkpoint = lab.back_up("plain")
    assert phase == "succeeded"
    phase, checkpoint = lab.back_up("plain", checkpoint)
    assert phase == "succeeded"
    assert lab.faults.do(fault, vm="plain", disk="d1", checkpoint=checkpoint) == ""
    phase, _ = lab.back_up("plain", checkpoint)
    assert phase == "[]"  # the order fails without a word
    assert lab.back_up("plain")[0] == "succeeded"


def test_bitmaps_of_a_crash_are_broken_as_they_are(lab: Lab):
    """A VM that was killed runs on with bitmaps that are inconsistent: breaking all of its bitmaps is no error."""
    path = lab.vm("plain")["disks"][0]["path"]
    assert lab.back_up("plain")[0] == "succeeded"
    with lab.faults.during("vm-power-off", vm="plain"):  # stores them
        wait(lambda: lab.state("plain") == "down")
    with lab.faults.during("vm-kill", vm="plain"):
        wait(lambda: lab.state("plain") == "down")
        assert "in-use" in run(["qemu-img", "info", path])
    phase, checkpoint = lab.back_up("plain")
    assert phase == "succeeded"
    lab.faults.do("bitmap-break", vm="plain")
    assert lab.back_up("plain", checkpoint)[0] == "[]"
    assert lab.back_up("plain")[0] == "succeeded"


def test_bitmaps_of_a_vm_that_is_down_break_as_in_a_crash(lab: Lab):
    path = lab.vm("idle")["disks"][0]["path"]
    with pytest.raises(LabError, match="no such bitmap"):
        lab.faults.do("bitmap-break", vm="idle")
    run(["qemu-img", "bitmap", "--add", "-f", "qcow2", path, "one"])
    lab.faults.do("bitmap-break", vm="idle")
    assert "in-use" in run(["qemu-img", "info", path])
    lab.faults.do("bitmap-lose", vm="idle")
    assert "one" not in run(["qemu-img", "info", path])


def test_a_full_domain_has_no_space_until_cleared(lab: Lab):
    with pytest.raises(LabError, match="no size of its own"):
        lab.faults.do("storage-full", domain="data")
    with lab.faults.during("storage-full", domain="small"), pytest.raises(LabError, match="No space left"):
        lab.io("other", "write -P 0x5a 1M 4M")
    assert "wrote" in lab.io("other", "write -P 0x5a 1M 4M")


def test_exports_are_full_or_read_only_until_cleared(lab: Lab):
    place = Path(lab.facts["target"]["mounts"]["controller"]) / "file"
    with lab.faults.during("nfs-read-only", export="backup"), pytest.raises(OSError, match="Read-only"):
        place.write_text("x")
    wait(lambda: place.write_text("x"))
    place.unlink()
    tiny = Path(lab.facts["exports"]["tiny"]["export_dir"])
    with lab.faults.during("nfs-full", export="tiny"):
        assert os.statvfs(tiny).f_bavail == 0
    assert os.statvfs(tiny).f_bavail > 0


def test_the_nfs_server_dies_or_hangs_until_cleared(lab: Lab):
    for name in ("nfs-kill", "nfs-freeze"):
        with lab.faults.during(name):
            assert lab.status()["nfs"] is False
        assert lab.status()["nfs"] is True


@pytest.mark.parametrize("how", ["down", "drop", "reject"])
def test_a_network_that_is_cut_is_whole_again(lab: Lab, how: str):
    name = lab.where("plain")
    address = lab.host(name)["address"]
    since = lab.last_event()
    connect = [sys.executable, "-c", f"import socket; socket.create_connection(('{address}', 54322), 1)"]
    with lab.faults.during("network-cut", host=name, how=how):
        assert lab.host_status(name) == "non_responsive"
        assert lab.state("plain") == "unknown"
        refused = lab.ask_backup("plain")
        assert (refused.status_code, "should be in Up or Down status" in refused.text) == (409, True)
        assert {12, 142} <= lab.codes(since)
        broken = subprocess.run(connect, capture_output=True, text=True, timeout=90, check=False)
        assert broken.returncode != 0
        assert ("refused" in broken.stderr) == (how == "reject")
    assert (lab.host_status(name), lab.state("plain")) == ("up", "up")
    assert 13 in lab.codes(since)
    wait(lambda: subprocess.run(connect, capture_output=True, timeout=90, check=False).returncode == 0)


def test_links_and_disks_are_slow_until_cleared(lab: Lab):
    netns = lab.host("alpha")["netns"]
    with lab.faults.during("link-slow", host="alpha", rate="1mbit"):
        assert "rate 1Mbit" in run(["tc", "-n", netns, "qdisc", "show", "dev", "eth0"])
    assert "tbf" not in run(["tc", "-n", netns, "qdisc", "show", "dev", "eth0"])
    with lab.faults.during("disk-slow", vm="plain", target="vda", rate=256 << 10):
        lab.io("plain", "write 0 512k")  # goes at once, and what follows waits for it to be paid
        begin = time.monotonic()
        lab.io("plain", "write 0 512k")
        assert time.monotonic() - begin > 1
    begin = time.monotonic()
    lab.io("plain", "write 0 16M")
    assert time.monotonic() - begin < 40  # 64 s with the limit, a moment without


def test_daemons_die_restart_and_are_slow(lab: Lab):
    def pid() -> int | None:
        return next(host["imageio"] for host in lab.status()["hosts"] if host["name"] == "beta")

    before = pid()
    assert lab.faults.do("imageio-restart", host="beta") == ""
    assert pid() not in (None, before)
    with lab.faults.during("imageio-kill", host="beta"):
        assert pid() is None
    url = f"https://{lab.host('beta')['address']}:54322/images/none/extents"  # of a ticket that it does not have
    with lab.faults.during("extents-slow", host="beta", seconds=90):
        slow = pid()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, verify=lab.trusted, timeout=1)
    assert httpx.get(url, verify=lab.trusted, timeout=DEADLINE).status_code == 403
    assert pid() == slow


def test_the_engine_forgets_logins_and_refuses_calls(lab: Lab):
    sso = f"{lab.facts['engine_url'].removesuffix('/api')}/sso/oauth/token"
    login = {"grant_type": "password", "scope": "ovirt-app-api", "username": lab.facts["username"]}
    login["password"] = lab.facts["password"]
    for name in ("tokens-expire", "engine-restart"):
        answer = httpx.post(sso, data=login, headers={"Accept": "application/json"}, verify=lab.trusted)
        token = answer.json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert lab.http.get("vms", headers=bearer, auth=None).status_code == 200
        assert lab.faults.do(name) == ""
        assert lab.http.get("vms", headers=bearer, auth=None).status_code == 401
    with lab.faults.during("call-fail", path="clusters", method="GET", first=2, status=500):
        assert [lab.http.get("clusters").status_code for _ in range(3)] == [200, 500, 200]
    with lab.faults.during("call-hang", path="clusters", seconds=0.4):
        begin = time.monotonic()
        lab.http.get("clusters")
        assert time.monotonic() - begin > 0.4


def test_a_snapshot_stays_when_its_live_merge_is_refused(lab: Lab):
    where = f"vms/{lab.vm('plain')['id']}/snapshots"
    made = lab.http.post(where, json={"description": "before", "persist_memorystate": False})
    made.raise_for_status()
    one = f"{where}/{made.json()['id']}"

    def gone() -> bool:
        return lab.http.get(one).status_code == 404

    wait(lambda: lab.http.get(one).json()["snapshot_status"] == "ok")
    lab.faults.do("act-refused", act="merge", vm="plain", count=1)
    lab.http.delete(one)
    wait(lambda: not gone() and lab.http.get(one).json()["snapshot_status"] == "ok")
    assert not gone()
    wait(lambda: lab.http.delete(one).status_code == 200)
    wait(gone)
    assert "wrote" in lab.io("plain", "write 0 64k")


def test_the_command_breaks_shows_and_mends(lab: Lab):
    def fault(*words: str) -> subprocess.CompletedProcess[str]:
        command = [OVIRTLAB, "fault", words[0], "--dir", lab.places.directory, *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    listed = subprocess.run([OVIRTLAB, "fault", "list"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert all(name in listed for name in FAULTS)
    assert fault("do", "call-fail", "clusters", "status=418").returncode == 0
    assert fault("do", "act-refused", "merge", "plain").returncode == 0
    shown = fault("status").stdout
    assert "call-fail path=clusters" in shown
    assert "act-refused act=merge vm=plain" in shown
    assert lab.http.get("clusters").status_code == 418
    assert fault("clear", "call-fail").returncode == 0
    assert "call-fail" not in fault("status").stdout
    assert fault("clear").returncode == 0
    assert "no fault is in force" in fault("status").stdout
    for words, said in (
        (["do", "nothing"], "there is no fault"),
        (["do", "host-kill"], "needs host"),
        (["do", "host-kill", "gamma"], "there is no host 'gamma'"),
        (["do", "call-hang", "vms", "soon"], "must be a number"),
        (["do", "host-kill", "alpha", "more"], "one too many"),
        (["clear", "host-kill"], "is in force"),
    ):
        refused = fault(*words)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_every_fault_says_what_it_does():
    for fault in FAULTS.values():
        assert fault.summary().endswith((".", ").")), fault.name
        assert all(one.help.endswith(".") for one in fault.parameters()), fault.name
