# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines of QEMU, and what its qemu-io commands print."""

from pathlib import Path

import pytest

from ovirtlab.machine.blockio import find_complaint
from ovirtlab.machine.command import Boot, MachineSpec, command_line
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import DiskNode

DISK = DiskNode(path=Path("/nowhere/a,b"), format="qcow2", target="vda", serial="disk-1")
BOOT = Boot(kernel=Path("/boot/k"), initrd=Path("/boot/i"), agent=False)


def spec(**fields) -> MachineSpec:
    return MachineSpec(**{"name": "vm", "directory": Path("/run/lab"), "memory_mib": 128, "disks": (DISK,)} | fields)


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_commas_do_not_end_an_option():
    argv = command_line(spec(name="a,b"))
    assert after(argv, "-name") == "guest=a,,b,debug-threads=off"
    assert "file.filename=/nowhere/a,,b" in after(argv, "-drive")


def test_without_a_guest_there_is_only_a_block_layer():
    argv = command_line(spec())
    assert after(argv, "-M") == "none"
    assert "-S" in argv
    assert "-device" not in argv


def test_the_kernel_line_tells_the_guest_whether_it_has_an_agent():
    words = after(command_line(spec(boot=BOOT, name="web 1")), "-append").split()
    assert "agent=0" in words
    assert "hostname=web-1" in words


def test_a_saved_state_is_named_safely():
    argv = command_line(spec(boot=BOOT, state=Path("/cache/it's; here")))
    assert after(argv, "-incoming") == "exec:lz4 -d -c -q '/cache/it'\"'\"'s; here'"


def test_sockets_need_a_short_path():
    with pytest.raises(HostError, match="shorter"):
        command_line(spec(directory=Path("/run") / ("x" * 110)))


@pytest.mark.parametrize(
    ("command", "text", "complaint"),
    [
        ("write 0 4k", "wrote 4096/4096 bytes at offset 0\n4 KiB, 1 ops; 00.00 sec (1 MiB/sec and 9 ops/sec)\n", ""),
        ("flush", "", ""),
        ("read -v 0 512", "00000000:  5a 5a  ZZ\nread 512/512 bytes at offset 0\n", ""),
        ("write 0 4k", "wrote 512/4096 bytes at offset 0\n", "wrote 512/4096 bytes at offset 0"),
        ("write 0 4k", "write failed: No space left on device\n", "write failed: No space left on device"),
        ("read -P 1 0 4k", "Pattern verification failed at offset 0, 4096 bytes\n", "Pattern verification"),
        ("write 9G 4k", "Error: Device 'x' not found\n", "Error: Device 'x' not found"),
        ("length", "64 MiB\n", ""),
        ("nonsense", 'command "nonsense" not found\n', "not found"),
    ],
)
def test_failures_are_found_in_what_is_printed(command, text, complaint):
    found = find_complaint(command, text)
    assert complaint in found
    assert bool(found) == bool(complaint)
