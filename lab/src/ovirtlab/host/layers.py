# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of volumes that no VM writes to: overlays made, volumes merged, and the bitmaps that span several of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovirtlab.host import volumes
from ovirtlab.host.api import VolumeFormat
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.process import run

Flags = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume of a chain with its persistent bitmaps; `bitmaps` is empty for a raw one."""

    path: Path
    format: str
    bitmaps: Flags


async def create_overlay(path: Path, backing: Path, fmt: VolumeFormat, *, bitmaps: tuple[str, ...] = ()) -> None:
    """Make an empty qcow2 volume over `backing` (of format `fmt`), which a VM may be using, with `bitmaps`.

    It goes on with every valid bitmap of the volume below, as VDSM's create_volume does when it is asked to.
    """
    if path.exists():
        raise HostError(f"the volume {path} exists already")
    below = (await chain(backing))[0]
    size = await _virtual_size(backing, fmt)
    names = [*bitmaps, *(name for name, flags in below.bitmaps.items() if _valid(flags) and name not in bitmaps)]
    try:
        await _create_over(path, backing.name, fmt, size)
        for name in names:
            await volumes.add_bitmap(path, name)
    except HostError:
        path.unlink(missing_ok=True)
        raise


async def create_transient(path: Path, backing: Path, fmt: VolumeFormat) -> None:
    """Make an empty qcow2 over `backing`, in another folder than that, for what a VM writes and nobody keeps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    await _create_over(path, str(backing), fmt, await _virtual_size(backing, fmt))


async def copy_layer(source: Path, sink: Path, *, backing: Path, fmt: VolumeFormat) -> None:
    """Copy what `source` holds itself into a new qcow2 volume over `backing`, which holds what is below `source`."""
    if sink.exists():
        raise HostError(f"the volume {sink} exists already")
    sink.parent.mkdir(parents=True, exist_ok=True)
    try:
        await run(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "qcow2", "-B", backing, "-F", fmt, source, sink])
        await run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", backing.name, "-F", fmt, sink])
    except HostError:
        sink.unlink(missing_ok=True)
        raise


async def merge(top: Path, base: Path, fmt: VolumeFormat, *, child: Path | None = None) -> None:
    """Write `top` into `base` (of format `fmt`), the volume below it, and put `child`, the one above, on `base`."""
    above = (await chain(top))[0]
    await run(["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", base, top])
    if fmt == "qcow2":
        below = await volumes.bitmaps(base)
        for name in (name for name, flags in above.bitmaps.items() if "in-use" not in flags):
            if name not in below:
                await volumes.add_bitmap(base, name)
            await _merge_bitmap(name, top, base)
    if child is not None:
        await run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", fmt, "-b", base.name, child])


async def chain(path: Path) -> tuple[Volume, ...]:
    """The volumes of a chain, `path` first; a VM may be using them."""
    shown = await run(["qemu-img", "info", "-U", "--output", "json", "--backing-chain", path])
    return tuple(_volume(info) for info in json.loads(shown))


def bitmap_span(volumes_down: tuple[Volume, ...], name: str) -> tuple[Volume, ...]:
    """The volumes that together bear a bitmap: all from the first one down to that in which it began.

    `HostError` in VDSM's words when a volume between lacks it, or bears it broken or disabled, or none has it.
    """
    bearing = [name in volume.bitmaps for volume in volumes_down]
    if not any(bearing):
        raise HostError(f"Bitmap does not exist: {name} in {volumes_down[0].path}")
    count = bearing.index(False) if False in bearing else len(bearing)
    if any(bearing[count:]):
        raise HostError(f"Invalid bitmap chain: {name} is missing in {volumes_down[count].path}")
    for volume in volumes_down[:count]:
        if not _valid(volume.bitmaps[name]):
            raise HostError(f"Invalid bitmap chain: {name} is disabled or in use in {volume.path}")
    return volumes_down[:count]


async def create_view(path: Path, span: tuple[Volume, ...], name: str) -> None:
    """Make a qcow2 over the first volume of `span` whose bitmap `name` is what all of them have recorded."""
    top = span[0]
    size = await _virtual_size(top.path, "qcow2")
    await _create_over(path, str(top.path), "qcow2", size)
    await run(["qemu-img", "bitmap", "--add", "--disable", "-f", "qcow2", path, name])
    for volume in span:
        await _merge_bitmap(name, volume.path, path)


async def _create_over(path: Path, backing: str, fmt: str, size: int) -> None:
    await run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", fmt, "-b", backing, path, str(size)])


async def _merge_bitmap(name: str, source: Path, sink: Path) -> None:
    """Add what a bitmap of one qcow2 volume has recorded to the one of the same name in another."""
    await run(["qemu-img", "bitmap", "--merge", name, "-b", source, "-F", "qcow2", "-f", "qcow2", sink, name])


def _valid(flags: tuple[str, ...]) -> bool:
    return "auto" in flags and "in-use" not in flags


def _volume(info: Mapping[str, Any]) -> Volume:
    found = info.get("format-specific", {}).get("data", {}).get("bitmaps", [])
    flags = {bitmap["name"]: tuple(bitmap["flags"]) for bitmap in found}
    return Volume(path=Path(info["filename"]), format=info["format"], bitmaps=flags)


async def _virtual_size(path: Path, fmt: str) -> int:
    info = json.loads(await run(["qemu-img", "info", "-U", "--output", "json", "-f", fmt, path]))
    return int(info["virtual-size"])
