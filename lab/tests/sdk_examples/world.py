# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine with the things that example programs name, and the running of such a program in it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ovirtsdk4.types
from lab.tests.engine_core.conftest import Lab, serve
from lab.tests.sdk_examples.table import Example

from ovirtlab.engine.entities.networks import Network, VnicProfile
from ovirtlab.engine.entities.people import User
from ovirtlab.environment import parse

DEADLINE = 90.0
ENVIRONMENT = """
hosts: [{name: myhost}, {name: otherhost}]
storage_domains: [{name: mydata}, {name: bs-scsi-012}]
username: admin@internal
password: secret
groups: [{name: mygroup, added: false}]
users: [{name: myuser@mydomain, password: secret}]
time_scale: 20
vms:
  - {name: myvm, host: myhost, running: false, disks: [{name: myvm_system, size: 16 MiB, backup: incremental}]}
  - {name: myvm0, host: otherhost, running: false}
  - {name: myvm1, host: otherhost, running: false}
  - {name: myvm2, host: otherhost, running: false}
  - {name: myvm3, host: otherhost, running: false}
"""


class World:
    """An engine with the things the examples name, and what a program has said."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab = lab
        self.state = lab.engine.state
        self.home = home
        self.said = ""
        self.types = ovirtsdk4.types
        self.connection = lab.connect()
        self.sdk = self.connection.system_service()
        self.wait = lab.wait
        self._name()

    def _name(self) -> None:
        """Give the data centre and the cluster the names in the examples, and add their network."""
        data_center = next(iter(self.state.data_centers.values()))
        data_center.name = "mydc"
        next(iter(self.state.clusters.values())).name = "mycluster"
        network = Network(id=self.state.new_id(), name="mynetwork", data_center_id=data_center.id)
        self.state.networks[network.id] = network
        profile = VnicProfile(id=self.state.new_id(), name="mynetwork", network_id=network.id)
        self.state.vnic_profiles[profile.id] = profile
        (self.home / ".config").mkdir()
        text = "[lab]\nengine_url = http://unused\nusername = unused\npassword = unused\n"
        (self.home / ".config/ovirt.conf").write_text(text)

    def named(self, table: Mapping[str, Any], name: str) -> Any:
        """The record of this name, or None."""
        return next((item for item in table.values() if item.name == name), None)

    def record(self, name: str) -> Any:
        return self.state.vms[self.lab.vm_id(name)]

    def disk(self, alias: str) -> Any:
        return self.state.disks[self.lab.disk_id(alias)]

    def vm(self, name: str) -> Any:
        return self.sdk.vms_service().vm_service(self.lab.vm_id(name))

    def remove_vm(self, name: str) -> None:
        self.vm(name).remove()
        self.wait(lambda: self.named(self.state.vms, name) is None)

    def add_user(self, name: str, domain: str) -> None:
        user = User(id=self.state.new_id(), name=name, domain=domain, password="secret")
        self.state.users[user.id] = user

    def held_by(self, name: str) -> list[Any]:
        """The permissions of a user."""
        user = self.named(self.state.users, name)
        return [item for item in self.state.permissions.values() if item.user_id == user.id]

    def values(self) -> dict[str, str]:
        """What arguments of programs may name."""
        return {"vm": self.lab.vm_id("myvm"), "disk": self.lab.disk_id("myvm_system")}

    def run(self, command: list[str], example: Example, **environment: str) -> None:
        """Run a program to its end, or as long as it takes to see what it is for."""
        with (self.home / "said").open("w+") as said:
            process = subprocess.Popen(
                command,
                cwd=self.home,
                env={**os.environ, "HOME": str(self.home), **environment},
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            try:
                status = self._end(process, lambda: self._seen(example)) if example.endless else process.wait(DEADLINE)
            finally:
                process.kill()
                process.wait()
        self.said = (self.home / "said").read_text()
        assert (status == 0) == (not example.refused), self.said
        assert example.refused in self.said

    def _end(self, process: subprocess.Popen[bytes], seen: Callable[[], bool]) -> int:
        """Wait until an endless program has done what it is for; it must still be running then."""
        end = time.monotonic() + DEADLINE
        while not seen():
            assert time.monotonic() < end, "the program did not do it in time"
            if process.poll() is not None:
                return process.returncode or 1
            time.sleep(0.05)
        return process.poll() or 0

    def _seen(self, example: Example) -> bool:
        self.said = (self.home / "said").read_text()
        return bool(example.holds(self))


@contextmanager
def inhabited(folder: Path) -> Iterator[World]:
    """A world of its own below a folder."""
    home = folder / "home"
    home.mkdir()
    with serve(folder / "lab", parse(ENVIRONMENT, origin="test")) as lab:
        made = World(lab, home)
        yield made
        made.connection.close()
