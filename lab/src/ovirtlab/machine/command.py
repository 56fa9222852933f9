# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of QEMU for a machine: a pure translation of what the machine is."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import (
    DiskNode,
    backing_options,
    device_options,
    drive_option,
    format_options,
    storage_options,
)

QEMU = "qemu-system-x86_64"
AGENT_PORT = "org.qemu.guest_agent.0"
SOCKET_PATH_LIMIT = 107  # sun_path of a Unix socket without its closing zero


@dataclass(frozen=True, kw_only=True)
class Boot:
    """How a guest starts: the direct kernel boot is the lab's firmware, the system is on the first disk."""

    kernel: Path
    initrd: Path
    agent: bool


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """Everything a QEMU process is started with; without `boot` it runs the block layer only.

    `state` is a file written by a migration of an equal machine, compressed with lz4; the machine then starts in it.
    `incoming` is one that waits for a running machine to be sent to it, and does not touch its disks until then.
    """

    name: str
    directory: Path
    memory_mib: int
    disks: tuple[DiskNode, ...]
    boot: Boot | None = None
    state: Path | None = None
    incoming: bool = False
    netns: str | None = None

    def file(self, name: str) -> Path:
        """A file of the machine: `qmp`, `agent`, `console` (sockets), `console.log`, `qemu.log` and `pid`."""
        return self.directory / name

    @property
    def hostname(self) -> str:
        """What the guest calls itself."""
        return "".join(char if char.isalnum() else "-" for char in self.name)[:60] or "guest"


def socket_path(path: Path) -> Path:
    """Return `path`, or raise `HostError` when it is too long for a Unix socket."""
    if len(str(path).encode()) > SOCKET_PATH_LIMIT:
        raise HostError(f"the path {path} is too long for a Unix socket; put the lab into a shorter directory")
    return path


def command_line(spec: MachineSpec) -> list[str]:
    """The argument list of QEMU, whose output is written line by line: qemu-io commands report there."""
    argv = ["stdbuf", "-oL", QEMU, "-name", f"guest={_escaped(spec.name)},debug-threads=off"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,tb-size=32"]
    argv += ["-pidfile", str(spec.file("pid"))]
    # QEMU waits for its one client before it goes on: a client that is accepted later, while the monitor moves to its
    # own thread, may never be greeted.
    monitor = _socket("monitor", socket_path(spec.file("qmp")), wait="on")
    argv += ["-chardev", monitor, "-mon", "chardev=monitor,mode=control"]
    argv += _without_guest(spec) if spec.boot is None else _with_guest(spec, spec.boot)
    if spec.incoming:
        argv += ["-incoming", "defer", *([] if spec.boot is None else ["-S"])]
    elif spec.state is not None:
        argv += ["-incoming", f"exec:lz4 -d -c -q {shlex.quote(str(spec.state))}"]
    return argv


def save_uri(state: Path) -> str:
    """Where a machine is migrated to that others shall start from.

    The file has its name when it is whole. When it cannot be written, `unfinished(state)` goes: QEMU may be done before
    the program that writes has even failed, so its word alone proves nothing.
    """
    partial, final = shlex.quote(str(unfinished(state))), shlex.quote(str(state))
    return f"exec:lz4 -1 -q > {partial} && mv {partial} {final} || rm -f {partial}"


def unfinished(state: Path) -> Path:
    """The name of a state that is being written."""
    return state.with_name(f"{state.name}.partial")


def _without_guest(spec: MachineSpec) -> list[str]:
    argv = ["-M", "none", "-S"]
    for disk in spec.disks:
        argv += ["-drive", drive_option(disk)]
    return argv


def _with_guest(spec: MachineSpec, boot: Boot) -> list[str]:
    argv = ["-M", "pc", "-m", str(spec.memory_mib), "-vga", "none", "-rtc", "base=utc"]
    argv += ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", _kernel_line(spec, boot)]
    console = _socket("console", socket_path(spec.file("console")))
    argv += ["-chardev", f"{console},logfile={_escaped(str(spec.file('console.log')))}", "-serial", "chardev:console"]
    argv += ["-chardev", _socket("agent", socket_path(spec.file("agent")))]
    argv += ["-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"]
    for disk in spec.disks:
        for options in (*backing_options(disk), storage_options(disk), format_options(disk)):
            argv += ["-blockdev", json.dumps(options)]
        argv += ["-device", json.dumps(device_options(disk))]
    return argv


def _kernel_line(spec: MachineSpec, boot: Boot) -> str:
    return f"console=ttyS0 quiet mitigations=off nokaslr agent={int(boot.agent)} hostname={spec.hostname}"


def _socket(name: str, path: Path, *, wait: str = "off") -> str:
    return f"socket,id={name},path={_escaped(str(path))},server=on,wait={wait}"


def _escaped(value: str) -> str:
    return value.replace(",", ",,")
