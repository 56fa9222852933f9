# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks as QEMU's block layer knows them: node names are the target (vda) and, for its file, `vda-storage`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DiskNode:
    """A disk of a machine; `serial` is what the guest reads as its serial number (the disk's id in oVirt)."""

    path: Path
    format: str
    target: str
    serial: str
    read_only: bool = False

    @property
    def storage(self) -> str:
        """Name of the node below the format."""
        return f"{self.target}-storage"

    @property
    def device(self) -> str:
        """Id of the guest's device."""
        return f"dev-{self.target}"


def direct_io_works(path: Path) -> bool:
    """Whether the file system of the existing file `path` takes O_DIRECT; tmpfs and some FUSE bridges do not."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def storage_options(disk: DiskNode) -> dict[str, Any]:
    """Arguments of blockdev-add for the node of the file."""
    return {
        "driver": "file",
        "node-name": disk.storage,
        "filename": str(disk.path),
        "discard": "unmap",
        "read-only": disk.read_only,
        "cache": {"direct": direct_io_works(disk.path), "no-flush": False},
    }


def format_options(disk: DiskNode) -> dict[str, Any]:
    """Arguments of blockdev-add for the node of the format, which bears the bitmaps."""
    return {
        "driver": disk.format,
        "node-name": disk.target,
        "file": disk.storage,
        "discard": "unmap",
        "read-only": disk.read_only,
        "cache": {"direct": direct_io_works(disk.path), "no-flush": False},
    }


def drive_option(disk: DiskNode) -> str:
    """The same two nodes under a block backend named as the device, as `-drive` and `drive_add` take it.

    A machine without a guest has no device that would hold a backend, and writes that enter at the node itself would
    pass below the filter of a running backup: QEMU refuses them.
    """
    switch = {True: "on", False: "off"}
    options = {
        "if": "none",
        "id": disk.device,
        "node-name": disk.target,
        "driver": disk.format,
        "discard": "unmap",
        "read-only": switch[disk.read_only],
        "cache.direct": switch[direct_io_works(disk.path)],
        "file.driver": "file",
        "file.node-name": disk.storage,
        "file.filename": str(disk.path).replace(",", ",,"),
        "file.discard": "unmap",
    }
    return ",".join(f"{name}={value}" for name, value in options.items())


def device_options(disk: DiskNode) -> dict[str, Any]:
    """Arguments of device_add for the guest's virtio disk."""
    return {"driver": "virtio-blk-pci", "id": disk.device, "drive": disk.target, "serial": disk.serial}
