# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks as QEMU's block layer knows them: node names are the target (vda) and, for its file, `vda-storage`.

A disk with snapshots is a chain of volumes: its active one on top, and a `Layer` for each one below.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A volume of a chain, and the node it is open as; below the active one it is only read."""

    path: Path
    format: str
    node: str

    @property
    def storage(self) -> str:
        """Name of the node below the format."""
        return f"{self.node}-storage"


@dataclass(frozen=True, kw_only=True)
class DiskNode:
    """A disk of a machine; `serial` is what the guest reads as its serial number (the disk's id in oVirt).

    `active` is the node of its active volume when that is not named by the target, as after a snapshot; `backing` are
    the volumes below, the newest first. `slot` is the guest's PCI slot for it, empty for the next that is free.
    """

    path: Path
    format: str
    target: str
    serial: str
    read_only: bool = False
    active: str = ""
    backing: tuple[Layer, ...] = ()
    slot: str = ""

    @property
    def node(self) -> str:
        """Name of the node of the active volume, which bears the bitmaps."""
        return self.active or self.target

    @property
    def chain(self) -> tuple[Layer, ...]:
        """All volumes, the active one first."""
        return (Layer(path=self.path, format=self.format, node=self.node), *self.backing)

    @property
    def storage(self) -> str:
        """Name of the node below the format."""
        return f"{self.node}-storage"

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
        "node-name": disk.node,
        "file": disk.storage,
        "discard": "unmap",
        "read-only": disk.read_only,
        "cache": {"direct": direct_io_works(disk.path), "no-flush": False},
        **({"backing": disk.backing[0].node} if disk.backing else {}),
    }


def backing_options(disk: DiskNode) -> list[dict[str, Any]]:
    """Arguments of blockdev-add for all nodes below the active volume, the lowest first.

    They are read only until a merge writes to one; QEMU reopens it for that, and the file node follows by itself.
    """
    added: list[dict[str, Any]] = []
    below: dict[str, Any] = {}
    for layer in reversed(disk.backing):
        cache = {"direct": direct_io_works(layer.path), "no-flush": False}
        common = {"read-only": True, "discard": "unmap", "cache": cache}
        file = {"driver": "file", "filename": str(layer.path), "node-name": layer.storage, "auto-read-only": True}
        added.append({**file, **common, "read-only": False})
        added.append({"driver": layer.format, "node-name": layer.node, "file": layer.storage, **common, **below})
        below = {"backing": layer.node}
    return added


def drive_option(disk: DiskNode) -> str:
    """The same two nodes under a block backend named as the device, as `-drive` and `drive_add` take it.

    A machine without a guest has no device that would hold a backend, and writes that enter at the node itself would
    pass below the filter of a running backup: QEMU refuses them.
    """
    switch = {True: "on", False: "off"}
    options = {
        "if": "none",
        "id": disk.device,
        "node-name": disk.node,
        "driver": disk.format,
        "discard": "unmap",
        "read-only": switch[disk.read_only],
        "cache.direct": switch[direct_io_works(disk.path)],
        "file.driver": "file",
        "file.node-name": disk.storage,
        "file.filename": str(disk.path).replace(",", ",,"),
        "file.discard": "unmap",
        **_backing_drives(disk),
    }
    return ",".join(f"{name}={value}" for name, value in options.items())


def _backing_drives(disk: DiskNode) -> dict[str, str]:
    """The volumes below the active one, as nested options."""
    options: dict[str, str] = {}
    prefix = "backing."
    for layer in disk.backing:
        options |= {
            f"{prefix}driver": layer.format,
            f"{prefix}node-name": layer.node,
            f"{prefix}file.driver": "file",
            f"{prefix}file.node-name": layer.storage,
            f"{prefix}file.filename": str(layer.path).replace(",", ",,"),
        }
        prefix += "backing."
    return options


def device_options(disk: DiskNode) -> dict[str, Any]:
    """Arguments of device_add for the guest's virtio disk."""
    device = {"driver": "virtio-blk-pci", "id": disk.device, "drive": disk.node, "serial": disk.serial}
    return {**device, **({"addr": disk.slot} if disk.slot else {})}
