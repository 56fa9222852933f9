# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab and the product's services in it, started and ended as an administrator would: by their commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

BIN = Path(sys.executable).parent


class NoTarget(Exception):
    """The machine cannot have an NFS server; the text says what it lacks."""


class CommandError(Exception):
    """A command ended with another status than was expected; carries all it wrote."""

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        self.status = status
        self.output = output
        super().__init__(f"`{' '.join(command)}` ended with status {status}: {output.strip()}")


@dataclass(frozen=True)
class Finished:
    """How a command ended; `text` is its standard output, `errors` its standard error."""

    status: int
    text: str
    errors: str

    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.text)


def run(
    command: Sequence[str | Path],
    *,
    timeout: float = 300,
    expect: int | None = 0,
    env: Mapping[str, str] | None = None,
    show: IO[str] | None = None,
) -> Finished:
    """Run a command to its end; `expect=None` takes any status; `show` gets standard output as it comes."""
    words = [str(word) for word in command]
    environment = {**os.environ, **(env or {})}
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            if show is None:
                text, errors = child.communicate(timeout=timeout)
            else:
                text, errors = _follow(child, show), child.stderr.read() if child.stderr else ""
                child.wait(timeout)
        except BaseException:
            child.kill()
            raise
    if expect is not None and child.returncode != expect:
        raise CommandError(words, child.returncode, errors + text)
    return Finished(child.returncode, text, errors)


def _follow(child: subprocess.Popen[str], show: IO[str]) -> str:
    lines: list[str] = []
    for line in child.stdout or ():
        lines.append(line)
        show.write(f"   {line}")
        show.flush()
    return "".join(lines)


def wait_until(condition: Any, *, what: str, seconds: float = 90) -> Any:
    """Call `condition` until it gives something true, and return that; raise `TimeoutError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)
    return found


@dataclass
class Lab:
    """A running `ovirtlab`, seen through its command and its `lab.json`."""

    directory: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What `lab.json` says now."""
        facts: dict[str, Any] = json.loads((self.directory / "lab.json").read_text())
        return facts

    def up(self, *options: str) -> None:
        """Start it and return when it is ready; raise `NoTarget` when it came up without an NFS server."""
        run([BIN / "ovirtlab", "up", "--dir", self.directory, *options], timeout=180)
        if missing := self.facts["target_missing"]:
            raise NoTarget(missing)

    def down(self) -> None:
        """End it; nothing is left."""
        run([BIN / "ovirtlab", "down", "--dir", self.directory], timeout=120)

    def guest(self, vm: str, script: str, *, timeout: float = 120) -> str:
        """Run a shell script inside a guest and return its output."""
        return run([*self.guest_command(vm), "/bin/sh", "-c", script], timeout=timeout).text

    def guest_command(self, vm: str) -> list[str | Path]:
        """The words that run what follows them inside a guest."""
        return [BIN / "ovirtlab", "guest", "exec", "--dir", self.directory, vm, "--"]

    def block_io(self, vm: str, target: str, *commands: str) -> None:
        """Write to a disk of a VM without a guest, through QEMU (`write -P 0x5a 100M 20M`), and flush."""
        run([BIN / "ovirtlab", "guest", "io", "--dir", self.directory, vm, target, *commands, "flush"])

    def fault(self, name: str, **parameters: str) -> None:
        """Break something, as `ovirtlab fault list` names it."""
        words = [f"{key}={value}" for key, value in parameters.items()]
        run([BIN / "ovirtlab", "fault", "do", "--dir", self.directory, name, *words])

    def vm(self, name: str) -> dict[str, Any]:
        """The VM of the environment with this name."""
        return next(vm for vm in self.facts["vms"] if vm["name"] == name)


@dataclass
class Service:
    """A daemon of the product, as a child process."""

    name: str
    command: list[str]
    log: Path
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output goes to the log."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; it is killed when it does not end within 20 seconds."""
        if self.child is None:
            return
        self.child.send_signal(sig)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.child is not None and self.child.poll() is None


@dataclass
class Deployment:
    """Controller and movers of the product in a lab, with one user's session of the command line."""

    lab: Lab
    directory: Path
    engine_url: str = ""  # when it is not the lab's own
    export: str = ""  # when it is not the lab's first
    more: Mapping[str, str] = field(default_factory=dict)  # further targets: their names, and the exports they are
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def controller_url(self) -> str:
        """Where the controller listens."""
        return f"https://127.0.0.1:{self._port}"

    def install(self) -> None:
        """Make keys, certificates and settings for the controller and for a mover on each host."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._port, self._mover_port = _free_port(), _free_port()
        facts = self.lab.facts
        pki = self.directory / "pki"
        self.admin("init", "--pki", pki, "--address", "127.0.0.1")
        password = self.directory / "engine-password"
        password.touch(mode=0o600)
        password.write_text(facts["password"])
        self._write("controller.toml", self._controller_settings(facts, pki, password))
        for host in facts["hosts"]:
            folder = self.directory / host["name"]
            self.admin("enrol", host["name"], "--address", host["address"], "--pki", pki, "--out", folder)
            self._write(f"{host['name']}/mover.toml", self._mover_settings(facts, host, folder))

    def admin(self, *words: str | Path) -> Finished:
        """Run `overkeep admin …`."""
        return run([BIN / "overkeep", "admin", *words])

    def start(self) -> None:
        """Start all services and return when they answer."""
        for host in self.lab.facts["hosts"]:
            self.start_mover(host["name"])
        self.start_controller()

    def start_mover(self, host: str) -> None:
        """Start the mover of a host, in the host's network."""
        netns = next(h for h in self.lab.facts["hosts"] if h["name"] == host).get("netns")
        # Not `ip netns exec`: that makes a mount namespace of its own, and nobody else would see the mover's mount.
        inside = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        command = [*inside, str(BIN / "overkeep-mover"), "--config", str(self.directory / host / "mover.toml")]
        self._start(f"mover-{host}", command)

    def start_controller(self) -> None:
        """Start the controller and wait until it answers."""
        command = [str(BIN / "overkeep-controller"), "--config", str(self.directory / "controller.toml")]
        service = self._start("controller", command)

        def answers() -> bool:
            if not service.running:
                raise RuntimeError(f"the controller ended at once: {service.log.read_text()[-2000:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        wait_until(answers, what="an answer of the controller", seconds=60)

    def stop(self) -> None:
        """End all services."""
        for service in reversed(list(self.services.values())):
            service.stop()

    def login(self) -> None:
        """Log the session in as the lab's administrator."""
        facts = self.lab.facts
        self.overkeep(
            "login",
            facts["engine_url"],
            "--ca-file",
            facts["ca_file"],
            "--username",
            facts["username"],
            "--password-file",
            self.directory / "engine-password",
            "--controller",
            self.controller_url,
            "--controller-ca-file",
            self.directory / "pki" / "ca.pem",
        )

    def overkeep(
        self, *words: str | Path, expect: int | None = 0, timeout: float = 300, show: IO[str] | None = None
    ) -> Finished:
        """Run `overkeep …` in this session."""
        return run([BIN / "overkeep", *words], expect=expect, timeout=timeout, show=show, env=self.session)

    @property
    def session(self) -> dict[str, str]:
        """The environment that makes `overkeep` use this session."""
        return {"OVERKEEP_SESSION": str(self.directory / "session.json")}

    @property
    def repository(self) -> Path:
        """The first backup target where the controller has it mounted."""
        return self.directory / "mnt" / "controller"

    def root(self, target: str) -> Path:
        """A backup target where the controller has it mounted."""
        return _place(self.repository, target)

    def image_path(self, point: Mapping[str, Any], image: Mapping[str, Any]) -> Path:
        """Where an image of a restore point lies, as docs/format/1.md has it."""
        vm = self.root(point["target"]) / "workloads" / str(point["workload_id"]) / "vms" / str(point["vm_id"])
        return vm / "disks" / str(image["disk_id"]) / str(image["file"])

    def _start(self, name: str, command: list[str]) -> Service:
        service = Service(name, command, self.directory / f"{name}.log")
        service.start()
        self.services[name] = service
        return service

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _target_settings(self, facts: dict[str, Any], mountpoint: Path) -> str:
        exports = {"nfs1": self.export, **self.more}
        return "".join(_target(facts, name, exports[name], _place(mountpoint, name)) for name in exports)

    def _controller_settings(self, facts: dict[str, Any], pki: Path, password: Path) -> str:
        return f"""\
listen = "127.0.0.1"
port = {self._port}
mover_port = {self._mover_port}
state_dir = {json.dumps(str(self.directory / "state"))}
pki_dir = {json.dumps(str(pki))}

[engine]
url = {json.dumps(self.engine_url or facts["engine_url"])}
ca_file = {json.dumps(facts["ca_file"])}
username = {json.dumps(facts["username"])}
password_file = {json.dumps(str(password))}
{self._target_settings(facts, self.repository)}"""

    def _mover_settings(self, facts: dict[str, Any], host: dict[str, Any], folder: Path) -> str:
        return f"""\
host = {json.dumps(host["name"])}
listen = {json.dumps(host["address"])}
port = {self._mover_port}
state_dir = {json.dumps(str(folder / "state"))}
cert_file = {json.dumps(str(folder / "cert.pem"))}
key_file = {json.dumps(str(folder / "key.pem"))}
controller_key_file = {json.dumps(str(folder / "controller.pub"))}
imageio_control_socket = {json.dumps(host["imageio_control_socket"])}
imageio_local_socket = {json.dumps(host["imageio_local_socket"])}
{self._target_settings(facts, self.directory / "mnt" / host["name"])}"""


def _place(first: Path, target: str) -> Path:
    """Where a service has a target mounted that has the first one at `first`."""
    return first if target == "nfs1" else first.with_name(f"{first.name}-{target}")


def _target(facts: dict[str, Any], name: str, export: str, mountpoint: Path) -> str:
    target = facts["exports"][export] if export else facts["target"]
    return f"""
[[target]]
name = {json.dumps(name)}
source = {json.dumps(target["source"])}
mountpoint = {json.dumps(str(mountpoint))}
options = {json.dumps(target["options"])}
mount_command = {json.dumps(target["mount_command"])}
"""


@contextlib.contextmanager
def deployed(
    lab: Lab, directory: Path, *, engine_url: str = "", export: str = "", more: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """Install and start the product in a running lab; end its services and mounts on the way out.

    `more` are targets beside `nfs1`: their names, and the exports of the lab that they are.
    """
    deployment = Deployment(lab, directory, engine_url=engine_url, export=export, more=more or {})
    try:
        deployment.install()
        deployment.start()
        deployment.login()
        yield deployment
    finally:
        deployment.stop()
        unmount(directory / "mnt")


def unmount(folder: Path, *, only: str = "*") -> None:
    """Unmount what is directly below `folder`."""
    for path in sorted(folder.glob(only)):
        if path.is_mount():
            run(["umount", path], expect=None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
