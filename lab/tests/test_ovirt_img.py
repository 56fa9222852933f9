# SPDX-License-Identifier: GPL-3.0-or-later
"""`ovirt-img`, the transfer program of ovirt-imageio, as it is, against a lab with a real host."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ovirtsdk4
import pytest
from lab.tests.conftest import nothing_left, short_directory

from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation"), pytest.mark.xdist_group("ovirt_img")]
OVIRT_IMG = Path(sys.executable).with_name("ovirt-img")
ENVIRONMENT = "hosts: [{name: alpha}]\nvms: []\n"
DATA = ("write -P 0x11 1M 3M", "write -P 0x22 40M 1M", "write -z 41M 1M", "write -P 0x33 63M 1M")


@dataclass(frozen=True)
class Program:
    """`ovirt-img` with a login to a lab, in a folder of its own."""

    facts: dict[str, Any]
    folder: Path

    def run(self, verb: str, *arguments: str | Path) -> None:
        """Run it to its end, which must be a good one with all of the disk transferred."""
        password = self.folder / "password"
        password.write_text(self.facts["password"])
        engine = self.facts["engine_url"].removesuffix("/ovirt-engine/api")
        login = ["--engine-url", engine, "--username", self.facts["username"], "--password-file", password]
        argv = [OVIRT_IMG, verb, *login, "--cafile", self.facts["ca_file"], "--output", "json", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last["transferred"] == last["size"] > 0

    def disks(self) -> dict[str, Any]:
        """The disks of the lab by alias."""
        with ovirtsdk4.Connection(
            url=self.facts["engine_url"],
            username=self.facts["username"],
            password=self.facts["password"],
            ca_file=self.facts["ca_file"],
        ) as connection:
            return {disk.alias: disk for disk in connection.system_service().disks_service().list()}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with short_directory() as directory:
        environment = tmp_path_factory.mktemp("environment") / "one.yaml"
        environment.write_text(ENVIRONMENT)
        yield start(directory, Wanted(environment=environment), say=lambda _: None)
        teardown.tear_down(directory)
        nothing_left(directory)


@pytest.fixture
def program(facts: dict[str, Any], tmp_path: Path) -> Program:
    return Program(facts, tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 image with data, zeros and holes."""
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True, timeout=90)
    orders = [word for order in DATA for word in ("-c", order)]
    subprocess.run(["qemu-io", "-f", "qcow2", *orders, path], check=True, timeout=90, stdout=subprocess.DEVNULL)
    return path


def equal(first: Path, second: Path) -> bool:
    compared = subprocess.run(["qemu-img", "compare", first, second], capture_output=True, text=True, timeout=60)
    return compared.returncode == 0


@pytest.mark.parametrize("stored", ["raw", "qcow2"])
@pytest.mark.parametrize("source", ["raw", "qcow2"])
def test_what_is_uploaded_is_downloaded(program: Program, image: Path, stored: str, source: str):
    """From a file of either format into a disk of either, and back into both."""
    uploaded = image
    if source == "raw":
        uploaded = image.with_suffix(".raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, uploaded], check=True, timeout=90)
    name = f"{source}-as-{stored}"
    wanted = str(uuid.uuid4())
    chosen = ("--storage-domain", "data", "--format", stored, "--name", name, "--disk-id", wanted)
    program.run("upload-disk", *chosen, uploaded)
    disk = program.disks()[name]
    assert disk.id == wanted
    assert disk.format.value == {"raw": "raw", "qcow2": "cow"}[stored]
    assert (disk.status.value, disk.provisioned_size) == ("ok", 64 << 20)
    for form in ("raw", "qcow2"):
        back = program.folder / f"back.{form}"
        program.run("download-disk", "--format", form, disk.id, back)
        assert equal(uploaded, back)
        said = subprocess.run(["qemu-img", "info", "--output=json", back], check=True, capture_output=True, timeout=90)
        assert json.loads(said.stdout)["format"] == form
