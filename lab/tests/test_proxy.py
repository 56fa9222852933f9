# SPDX-License-Identifier: GPL-3.0-or-later
"""The imageio proxy on the Engine's address: images go up and come down through it, and it has no ticket afterwards."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import ovirtsdk4
import pytest
from ovirt_imageio import client
from ovirtsdk4 import types

from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

from .conftest import nothing_left, short_directory

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation")]
SIZE = 8 << 20
DEADLINE = 90.0
ENVIRONMENT = """
hosts: [{name: h1}, {name: h2}]
vms: [{name: idle, running: false, disks: [{size: 8 MiB}]}]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[dict[str, Any]]:
    environment = tmp_path / "lab.yaml"
    environment.write_text(ENVIRONMENT)
    with short_directory() as directory:
        yield start(directory, Wanted(environment=environment), say=lambda _: None)
        teardown.tear_down(directory)
        nothing_left(directory)


@pytest.fixture
def system(lab: dict[str, Any]) -> Iterator[Any]:
    connection = ovirtsdk4.Connection(
        url=lab["engine_url"], username=lab["username"], password=lab["password"], ca_file=lab["ca_file"]
    )
    yield connection.system_service()
    connection.close()


def wait(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)
    return found


def transfer(system: Any, disk_id: str, direction: types.ImageTransferDirection) -> tuple[Any, types.ImageTransfer]:
    wanted = types.ImageTransfer(disk=types.Disk(id=disk_id), direction=direction, format=types.DiskFormat.RAW)
    service = system.image_transfers_service()
    service = service.image_transfer_service(service.add(wanted).id)

    def begun() -> types.ImageTransfer | None:
        found = service.get()
        return found if found.phase == types.ImageTransferPhase.TRANSFERRING and found.proxy_url else None

    return service, wait(begun)


def finish(service: Any) -> None:
    service.finalize()
    wait(lambda: service.get().phase == types.ImageTransferPhase.FINISHED_SUCCESS)


def test_images_go_through_the_proxy(lab: dict[str, Any], system: Any, tmp_path: Path) -> None:
    source, copy = tmp_path / "source.raw", tmp_path / "copy.raw"
    source.write_bytes(bytes(range(256)) * (SIZE // 512) + bytes(SIZE // 2))
    domain = types.StorageDomain(name=lab["storage_domains"][0]["name"])
    wanted = types.Disk(name="new", provisioned_size=SIZE, format=types.DiskFormat.COW, storage_domains=[domain])
    disks = system.disks_service()
    disk = disks.disk_service(disks.add(wanted).id)
    wait(lambda: disk.get().status == types.DiskStatus.OK)

    service, upload = transfer(system, disk.get().id, types.ImageTransferDirection.UPLOAD)
    proxy, ca = lab["imageio_proxy"], lab["ca_file"]
    assert upload.proxy_url.startswith(f"https://{proxy['address']}:{proxy['port']}/images/")
    assert proxy["address"] in lab["engine_url"]
    client.upload(str(source), upload.proxy_url, ca)
    finish(service)
    wait(lambda: disk.get().status == types.DiskStatus.OK)

    service, download = transfer(system, disk.get().id, types.ImageTransferDirection.DOWNLOAD)
    client.download(download.proxy_url, str(copy), ca, fmt="raw")
    finish(service)
    assert copy.read_bytes() == source.read_bytes()

    trusting = ssl.create_default_context(cafile=ca)
    for url in (upload.proxy_url, download.proxy_url):
        assert httpx.get(url, verify=trusting).status_code == 403  # no such ticket
