# SPDX-License-Identifier: GPL-3.0-or-later
"""File volumes that no VM uses: made, copied, verified, and their bitmaps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovirtlab.host.api import VolumeFormat
from ovirtlab.machine import images
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.process import run


async def create(path: Path, fmt: VolumeFormat, size: int, *, preallocate: bool = False) -> None:
    """Make an empty volume of `size` bytes; an existing file is an error, as it is somebody's disk."""
    if path.exists():
        raise HostError(f"the volume {path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["-o", "preallocation=falloc"] if preallocate else []
    try:
        await run(["qemu-img", "create", "-q", "-f", fmt, *options, path, str(size)])
    except HostError:
        path.unlink(missing_ok=True)
        raise


def delete(path: Path) -> None:
    """Remove a volume; a missing one is success."""
    path.unlink(missing_ok=True)


async def copy(source: Path, sink: Path, fmt: VolumeFormat, *, bitmaps: bool = False) -> None:
    """Copy what a guest sees of `source` into a new volume of format `fmt`, with the `bitmaps` as VDSM does."""
    if sink.exists():
        raise HostError(f"the volume {sink} exists already")
    found: VolumeFormat = "qcow2" if (await _info(source))["format"] == "qcow2" else "raw"
    sink.parent.mkdir(parents=True, exist_ok=True)
    try:
        await images.copy(source, sink, source_format=found, sink_format=fmt, bitmaps=bitmaps)
    except HostError:
        sink.unlink(missing_ok=True)
        raise


async def resize(path: Path, fmt: VolumeFormat, size: int) -> None:
    await run(["qemu-img", "resize", "-q", "-f", fmt, path, str(size)])


async def verify(path: Path, fmt: VolumeFormat) -> None:
    """Check an uploaded volume as VDSM's Volume.verify does: format, qcow2 of compat 1.1, no backing file."""
    info = await _info(path, fmt)
    if fmt == "raw":
        return
    if info["format-specific"]["data"]["compat"] != "1.1":
        raise HostError(f"the volume {path} is a qcow2 of an unsupported version")
    if "backing-filename" in info:
        raise HostError(f"the volume {path} has a backing file {info['backing-filename']}")
    if "data-file" in info["format-specific"]["data"]:
        raise HostError(f"the volume {path} keeps its data in another file")


async def bitmaps(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Names of the persistent bitmaps of a volume with their flags; none in a raw one."""
    info = await _info(path)
    found = info.get("format-specific", {}).get("data", {}).get("bitmaps", [])
    return {bitmap["name"]: tuple(bitmap["flags"]) for bitmap in found}


async def add_bitmap(path: Path, name: str) -> None:
    await run(["qemu-img", "bitmap", "--add", "-f", "qcow2", path, name])


async def remove_bitmap(path: Path, name: str) -> None:
    """Remove a bitmap, also an inconsistent one; a missing one is success."""
    if name in await bitmaps(path):
        await run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", path, name])


async def _info(path: Path, fmt: VolumeFormat | None = None) -> dict[str, Any]:
    named = ["-f", fmt] if fmt else []
    info: dict[str, Any] = json.loads(await run(["qemu-img", "info", "--output", "json", *named, path]))
    return info
