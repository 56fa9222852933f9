# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders to movers and their states, as they cross the wire (docs/protocol/orders-1.md)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.qcow2$")]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
OrderId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:[A-Za-z0-9._-]+:[0-9]+$")]


NO_CHANGED_BLOCKS = "no-changed-blocks"
"""Error code of an order that asked for changes which the disk does not tell: comparing it works."""

BACKING_MISSING = "backing-missing"
"""Error code of an order whose backing image is not there or no sound one: a full backup works."""


MOST_IMAGES = 256
"""Images of one disk that an order names."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Told(BaseModel):
    """What a mover tells; one of a later version may tell more, which is left out of account."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Access(_Wire):
    """A disk that the Manager opened on this host: a ticket of the host's ovirt-imageio."""

    kind: Literal["access"] = "access"
    ticket: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class Image(_Wire):
    """An image in the repository: `folder` is relative to the target's root; `backing` is a bare name beside it."""

    kind: Literal["image"] = "image"
    target: str
    repository: str
    folder: Folder
    name: ImageName
    backing: ImageName | None = None


class _Order(_Wire):
    """What all orders say: the host that is meant, and `lease` and `fence` as in docs/protocol/orders-1.md.

    `lease` is in seconds: without contact for so long the mover stops. `fence` rises with each attempt at the same
    sink.
    """

    host: str
    lease: float = Field(default=60, gt=0, le=3600)
    fence: int = Field(default=1, ge=1, le=2**53)

    @property
    def fenced(self) -> bool:
        """Whether an order with a lower fence than the highest one seen for its sink is refused."""
        return True


class CopyOrder(_Order):
    """Copy one disk, access to image (backup) or image to access (restore).

    `dirty` asks for the extents that changed since the base, `compare` for the clusters that differ from the backing
    image; both need one. `differential` writes only what differs from what the disk holds. `bandwidth` is in bytes a
    second, 0 for no limit; `read_back` is the share of what was written that is read again from the target or the disk.
    """

    kind: Literal["copy"] = "copy"
    source: Access | Image = Field(discriminator="kind")
    sink: Access | Image = Field(discriminator="kind")
    dirty: bool = False
    compare: bool = False
    differential: bool = False
    compression: Literal["none", "zstd"] = "none"
    level: int = Field(default=2, ge=1, le=19)
    cluster: Literal[65536, 131072, 262144, 524288, 1048576, 2097152] = 65536
    bandwidth: int = Field(default=0, ge=0)
    read_back: float = Field(default=0.01, ge=0, le=1)


class _Bookkeeping(_Order):
    """Work inside the folder of a disk in the repository; `folder` is relative to the target's root."""

    target: str
    repository: str
    folder: Folder

    @property
    def fenced(self) -> bool:
        """No: orders of many jobs have the same folder as their sink, and whoever works on a merge owns it there."""
        return False


class MergeOrder(_Bookkeeping):
    """Remove the images `remove` of a disk, whose points must be gone; their data go into the images above them."""

    kind: Literal["merge"] = "merge"
    remove: tuple[ImageName, ...] = Field(max_length=MOST_IMAGES)


class VerifyOrder(_Bookkeeping):
    """Check `images` of a disk, each by itself: a `share` of their data, and for no longer than `seconds` in all."""

    kind: Literal["verify"] = "verify"
    images: tuple[ImageName, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    share: float = Field(default=1.0, gt=0, le=1)
    seconds: float | None = Field(default=None, gt=0)


Order = CopyOrder | MergeOrder | VerifyOrder
ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
"""Reads an order of any kind."""


def masked(ticket: str) -> str:
    """Name a ticket in messages and logs: its id is all one needs to read the disk, so only its beginning is told."""
    return f"{ticket[:8]}…"


def sink_path(order: Order) -> str:
    """Name what an order works on.

    `image:<target>/<folder>/<name>` or `access:<ticket>` for a copy, `merge:<target>/<folder>` or
    `verify:<target>/<folder>` for the others.
    """
    if not isinstance(order, CopyOrder):
        return f"{order.kind}:{order.target}/{order.folder}"
    sink = order.sink
    if isinstance(sink, Access):
        return f"access:{sink.ticket}"
    return f"image:{sink.target}/{sink.folder}/{sink.name}"


def collide(one: Order, other: Order) -> bool:
    """Whether two orders must not run at the same time.

    Copies collide at the same sink. A merge has the folder of its disk for itself, a check shares it with restores.
    """
    if isinstance(one, CopyOrder) and isinstance(other, CopyOrder):
        return sink_path(one) == sink_path(other)
    alone = isinstance(one, MergeOrder) or isinstance(other, MergeOrder)
    return bool(_folders(one, read=alone) & _folders(other, read=alone))


def _folders(order: Order, *, read: bool) -> set[tuple[str, str]]:
    """The folders that an order changes, and with `read` those that it reads."""
    if not isinstance(order, CopyOrder):
        return {(order.target, order.folder)}
    ends = (order.source, order.sink) if read else (order.sink,)
    return {(end.target, end.folder) for end in ends if isinstance(end, Image)}


class OrderState(StrEnum):
    """`interrupted`: the mover was restarted during the work; the controller decides on the next attempt."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self not in (OrderState.ACCEPTED, OrderState.RUNNING)


class Progress(_Told):
    """How far a copy is: bytes of extents passed, bytes of all extents, bytes moved over the wire."""

    done: int = 0
    total: int = 0
    moved: int = 0


class CopyResult(_Told):
    """What a finished copy did; `covered` and `stored` as in `overkeep.model.points.DiskImage`.

    `compared` are the bytes that a differential restore read of the disk to find out what differs, besides those that
    were `moved`. `seconds` are those that one waits for: comparing, copying and reading back. `stages` are the seconds
    of all workers by stage (`overkeep.blocks.stages.Stages`).
    """

    virtual_size: int
    covered: int
    compared: int = 0
    moved: int
    stored: int
    seconds: float
    stages: dict[str, float] = Field(default_factory=dict)


class MergeResult(_Told):
    """What a finished merge did: bytes moved, bytes given back to the target, names of images removed.

    `stages` as of `CopyResult`; movers of before they were told have none.
    """

    moved: int
    freed: int
    removed: tuple[ImageName, ...]
    seconds: float
    stages: dict[str, float] = Field(default_factory=dict)


def rounded(stages: Mapping[str, float]) -> dict[str, float]:
    """Stages as they cross the wire, in whole milliseconds."""
    return {name: round(seconds, 3) for name, seconds in stages.items()}


class ImageFindings(_Told):
    """What a check of one image found (`overkeep.blocks.verify.Findings`); sizes in bytes, counts in clusters."""

    image: ImageName
    held: int
    checked: int
    damaged: int
    named: tuple[int, ...]
    undigested: int
    leaked: int
    errors: tuple[str, ...]

    @property
    def reached(self) -> bool:
        """Yes: those for which there was no time are not told."""
        return True


class VerifyResult(_Told):
    """What a finished check found, image by image; those that were not reached in time are left out."""

    images: tuple[ImageFindings, ...]
    seconds: float


Result = CopyResult | MergeResult | VerifyResult
"""What an order of each kind comes to."""
RESULT: TypeAdapter[Result] = TypeAdapter(Result)


class OrderStatus(_Told):
    """Answer to every call about an order; `seq` rises with each change and is what `after` compares."""

    id: OrderId
    state: OrderState
    seq: int
    progress: Progress = Progress()
    result: Result | None = None
    error_code: str = ""
    error: str = ""
    retry: bool = False
