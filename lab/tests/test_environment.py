# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments: what YAML means, what is refused with which words, and how they are scaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovirtlab import environment as environments
from ovirtlab.environment import BadEnvironment, Environment

MINIMAL = "hosts: [{name: h1}, {name: h2}]\n"
GIB = 1 << 30


def parsed(text: str) -> Environment:
    return environments.parse(text, origin="lab.yaml")


def test_default_has_a_guest_with_agent_one_without_and_a_vm_without_guest():
    lab = environments.default()
    assert [host.name for host in lab.hosts] == ["host1", "host2"]
    assert [(vm.name, vm.guest, vm.agent) for vm in lab.vms] == [
        ("web", "linux", True),
        ("db", "linux", False),
        ("plain", "none", False),
    ]
    assert [(disk.format, disk.backup, disk.size) for disk in lab.vms[0].disks] == [("qcow2", "incremental", GIB)] * 2
    assert [disk.format for disk in lab.vms[1].disks] == ["raw"]


def test_defaults_of_a_vm():
    (vm,) = parsed(MINIMAL + "vms: [{name: a, disks: [{size: 1 GiB}]}]").vms
    assert (vm.host, vm.memory_mib, vm.guest, vm.agent, vm.running) == ("h1", 128, "none", False, True)
    (disk,) = vm.disks
    assert (disk.name, disk.format, disk.backup, disk.bootable) == ("a_Disk1", "qcow2", "none", True)
    assert disk.storage_domain == "data"


def test_a_password_is_made_up_and_one_given_is_kept():
    assert len(parsed(MINIMAL).password) >= 12
    assert parsed(MINIMAL).password != parsed(MINIMAL).password
    assert parsed(MINIMAL + "password: secret").password == "secret"


def test_vms_by_count_are_numbered_and_spread_over_the_hosts():
    vms = parsed(MINIMAL + "vms: [{name: t, count: 3, disks: [{size: 10 MiB}]}]").vms
    assert [(vm.name, vm.host, vm.disks[0].name) for vm in vms] == [
        ("t-1", "h1", "t-1_Disk1"),
        ("t-2", "h2", "t-2_Disk1"),
        ("t-3", "h1", "t-3_Disk1"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lab.yaml must be a mapping"),
        ("hosts: {", "not YAML"),
        ("vms: []", "`hosts` is missing"),
        ("hosts: []", "`hosts` is empty"),
        ("hosts: [{name: a}, {name: a}]", "names a more than once"),
        ("hosts: [{name: A B}]", "does not match"),
        ("hosts: [{nmae: a}]", "`name` is missing"),
        ("hosts: [{name: a, cpu: 2}]", "hosts[1]: `cpu` is not known here; known are: name"),
        (MINIMAL + "colour: red", "`colour` is not known"),
        (MINIMAL + "vms: [{name: x, host: h9}]", "choose one of: h1, h2"),
        (MINIMAL + "vms: [{name: x, guest: windows}]", "choose one of: none, linux"),
        (MINIMAL + "vms: [{name: x, guest: linux}]", "vms[1]: `disks` is missing"),
        (MINIMAL + "vms: [{name: x, agent: true}]", "no guest that could run one"),
        (MINIMAL + "vms: [{name: x, running: maybe}]", "must be true or false"),
        (MINIMAL + "vms: [{name: x, disks: [{size: 1 GB}]}]", "vms[1]: disks[1]: `size` must be a size like `1 GiB`"),
        (MINIMAL + "vms: [{name: x, disks: [{}]}]", "`size` is missing"),
        (MINIMAL + "vms: [{name: x, disks: [{size: 1 GiB, format: raw, backup: incremental}]}]", "only qcow2"),
        (MINIMAL + "vms: [{name: x}, {name: x}]", "names x more than once"),
        (MINIMAL + "time_scale: 0", "must be a number not below"),
        (MINIMAL + "settings: [1]", "must map names to numbers"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, words: str):
    with pytest.raises(BadEnvironment) as caught:
        parsed(text)
    assert words in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(BadEnvironment, match="cannot be read: No such file"):
        environments.load(tmp_path / "none.yaml")


def test_scaling_up_adds_hosts_and_vms_without_guest():
    lab = environments.scaled(environments.default(), hosts=3, vms=5)
    assert [host.name for host in lab.hosts] == ["host1", "host2", "host3"]
    assert [vm.name for vm in lab.vms] == ["web", "db", "plain", "plain1", "plain2"]
    assert {vm.guest for vm in lab.vms[3:]} == {"none"}


def test_scaling_down_moves_vms_to_the_hosts_that_stay():
    lab = environments.scaled(environments.default(), hosts=1, vms=2)
    assert [(vm.name, vm.host) for vm in lab.vms] == [("web", "host1"), ("db", "host1")]


def test_scaling_to_nothing_said_changes_nothing():
    lab = environments.default()
    assert environments.scaled(lab) == lab
