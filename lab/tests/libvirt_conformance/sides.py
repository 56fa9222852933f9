# SPDX-License-Identifier: GPL-3.0-or-later
"""The two that are compared: libvirt and the lab's host, with the same verbs and a record of what each tells QEMU."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import subprocess
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ovirtlab.host.api import BackupDisk, HostError, VmDefinition, VmDisk
from ovirtlab.host.local import LocalHost

DRIVER = Path(__file__).with_name("driver.py")
SYSTEM_PYTHON = "/usr/bin/python3"
ANSWER_LIMIT = 60.0
SIZE = "64M"
SENT = re.compile(rb"QEMU_MONITOR_SEND_MSG: mon=\S+ msg=(\{.*\})")

Command = tuple[str, Mapping[str, Any]]
Disks = tuple[tuple[str, str], ...]
Plan = tuple[tuple[str, str | None, bool], ...]


class Refused(Exception):
    """A verb was refused with one of libvirt's numbers."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Side(Protocol):
    """A plan names for each disk the checkpoint it starts from and whether it gets a bitmap of the new one."""

    directory: Path

    def start(self, disks: Disks) -> None: ...
    def begin(self, name: str, plan: Plan) -> Path:
        """Start a backup with the checkpoint `name`; return its NBD socket."""

    def stop(self) -> None: ...
    def write(self, target: str, command: str) -> None: ...
    def redefine(self, name: str, targets: tuple[str, ...]) -> None: ...
    def delete(self, name: str) -> None: ...
    def lose_bitmap(self, target: str, name: str) -> None: ...
    def power_off(self) -> None: ...
    def kill(self) -> None: ...
    def sent(self) -> list[Command]:
        """What was sent to QEMU since the last call, queries left out, in the lab's names."""


class Libvirt:
    """libvirt in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "libvirt.log"
        self._read = 0
        self._roles: dict[str, str] = {}
        environment = {
            **os.environ,
            "LIBVIRT_LOG_FILTERS": "2:qemu.qemu_monitor",
            "LIBVIRT_LOG_OUTPUTS": f"2:file:{self._log}",
        }
        pipe = subprocess.PIPE
        errors = (directory / "driver.err").open("wb")
        argv = [*_as_libvirt_likes_it(directory), SYSTEM_PYTHON, str(DRIVER), str(directory)]
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, env=environment)
        errors.close()

    def close(self) -> None:
        """End the driver and whatever of QEMU it did not end itself."""
        for end in (self._process.stdin, self._process.stdout):
            assert end is not None
            end.close()
        try:
            self._process.wait(90)
        finally:
            self._process.kill()
            self._process.wait()
            self.kill()

    def order(self, verb: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_LIMIT)
        line = self._process.stdout.readline() if ready else b""
        assert line, f"libvirt does not answer: {(self.directory / 'driver.err').read_text()}"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["code"])
        return answer["result"]

    def start(self, disks: Disks) -> None:
        self._roles |= self.order("start", disks=disks)

    def begin(self, name: str, plan: Plan) -> Path:
        _make_scratch(self.directory, name, plan)  # as VDSM does before it calls libvirt
        self._roles |= self.order("begin", name=name, plan=plan)
        return self.directory / "backup"

    def stop(self) -> None:
        self.order("stop")

    def write(self, target: str, command: str) -> None:
        self.order("write", target=target, command=command)

    def redefine(self, name: str, targets: tuple[str, ...]) -> None:
        self.order("redefine", name=name, targets=targets)

    def delete(self, name: str) -> None:
        self.order("delete", name=name)

    def lose_bitmap(self, target: str, name: str) -> None:
        self.order("lose_bitmap", target=target, name=name)

    def power_off(self) -> None:
        self.order("power_off")

    def kill(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.directory / "root/run/qemu/vm1.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                select.select([os.pidfd_open(pid)], [], [], 10)

    def sent(self) -> list[Command]:
        with self._log.open("rb") as log:
            log.seek(self._read)
            content = log.read()
            self._read = log.tell()
        messages = [json.loads(found[1]) for line in content.splitlines() if (found := SENT.search(line))]
        commands = [(message["execute"], message.get("arguments", {})) for message in messages]
        return _normal(commands, self._roles)


class OurHost:
    """The lab's host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._runner = asyncio.Runner()
        self._commands: list[Command] = []
        self._disks: tuple[VmDisk, ...] = ()
        self._count = 0
        run = directory / "h"
        self._host = LocalHost(
            name="h",
            id="h",
            address="127.0.0.1",
            imageio_port=0,
            directory=run,
            control_socket=run / "none",
            netns=None,
            cache=directory / "cache",
        )

    def close(self) -> None:
        self._call(self._host.close())
        self._runner.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(ANSWER_LIMIT):
                return await work

        try:
            return self._runner.run(limited())
        except HostError as error:
            raise Refused(str(error), error.code) from error

    def start(self, disks: Disks) -> None:
        self._disks = tuple(
            VmDisk(disk_id=target, path=self.directory / f"{target}.{form}", format=form, target=target)  # type: ignore[arg-type]
            for target, form in disks
        )
        self._call(self._host.start_vm(VmDefinition(vm_id="vm1", name="vm1", memory_mib=16, disks=self._disks)))
        monitor = self._host._vms.machine("vm1").monitor
        execute = monitor.execute

        async def recording(command: str, arguments: Mapping[str, Any] | None = None) -> Any:
            self._commands.append((command, arguments or {}))
            return await execute(command, arguments)

        monitor.execute = recording  # type: ignore[method-assign]

    def begin(self, name: str, plan: Plan) -> Path:
        self._count += 1
        disks = tuple(
            BackupDisk(
                disk_id=target,
                scratch=self.directory / f"{name}-{target}.scratch",
                from_checkpoint=since,
                to_checkpoint=name if bitmap else None,
            )
            for target, since, bitmap in plan
        )
        backup = f"b{self._count}"
        self._call(self._host.start_backup("vm1", backup, disks, require_consistency=False))
        return self.directory / "h/backup" / backup

    def stop(self) -> None:
        self._call(self._host.stop_backup("vm1", f"b{self._count}"))

    def write(self, target: str, command: str) -> None:
        self._call(self._host.block_io("vm1", target, command))

    def redefine(self, name: str, targets: tuple[str, ...]) -> None:
        self._call(self._host.redefine_checkpoints("vm1", {name: targets}))

    def delete(self, name: str) -> None:
        self._call(self._host.delete_checkpoint("vm1", name))

    def lose_bitmap(self, target: str, name: str) -> None:
        machine = self._host._vms.machine("vm1")
        self._call(machine.execute("block-dirty-bitmap-remove", {"node": target, "name": name}))

    def power_off(self) -> None:
        self._call(self._host.stop_vm("vm1", force=True))

    def kill(self) -> None:
        self._call(self._host.crash_vm("vm1"))

    def sent(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return _normal(commands, {})


def _normal(commands: Iterable[Command], roles: Mapping[str, str]) -> list[Command]:
    """Leave out queries and writes, and name nodes, jobs, exports and files alike."""
    names = dict(roles)
    for node, role in roles.items():
        names[f"backup-{role}-{node}"] = f"backup-{role}"
        names[f"libvirt-nbd-{node}"] = f"export-{role.removeprefix('scratch-')}"

    def named(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: Path(item).name if key == "filename" else named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    ignored = ("query-", "qom-", "human-monitor-command")
    kept = [(command, named(arguments)) for command, arguments in commands if not command.startswith(ignored)]
    return [(command, _socket_left_out(arguments)) for command, arguments in kept]


def _socket_left_out(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The path of the NBD server's socket is the caller's choice."""
    if "addr" not in arguments:
        return arguments
    return {**arguments, "addr": {**arguments["addr"], "data": {"path": "SOCKET"}}}


def _make_scratch(directory: Path, name: str, plan: Plan) -> None:
    for target, _, _ in plan:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(directory / f"{name}-{target}.scratch"), SIZE]
        subprocess.run(argv, check=True, timeout=90)


def _as_libvirt_likes_it(directory: Path) -> list[str]:
    """A command that runs another one where the user libvirt-qemu exists, as libvirt will not start without it.

    The package that would make the user also brings libvirt's services; only in a mount namespace of the command's
    own is there a list with that user.
    """
    script = 'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"'
    user, group = "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n", "libvirt-qemu:x:64055:\n"
    for name, line in (("passwd", user), ("group", group)):
        (directory / name).write_text(Path("/etc", name).read_text().rstrip("\n") + "\n" + line)
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(directory)]
