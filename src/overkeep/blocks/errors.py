# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the block plane: which end failed, on what, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overkeep.errors import OverkeepError


class TargetFull(OverkeepError):
    """The backup target has no room left, or a quota or limit says so."""

    code = "target-full"
    template = (
        "There is no room left for {path} on the backup target ({reason}); "
        "free space, raise the quota, or shorten the retention, and run the job again."
    )
    status = 507


class TargetReadOnly(OverkeepError):
    """The backup target cannot be written."""

    code = "target-read-only"
    template = (
        "The backup target does not allow writing {path} ({reason}); "
        "export and mount it writable for the user of the services (36:36), and run the job again."
    )


class TargetStale(OverkeepError):
    """The NFS server no longer knows the file."""

    code = "target-stale"
    template = (
        "{path} was removed or replaced on the backup target while it was in use ({reason}); "
        "if the server was exported anew, mount the target again, and run the job again."
    )
    retry = True


class TargetMissing(OverkeepError):
    """A file or folder of the backup target is not there."""

    code = "target-missing"
    template = "{path} is not on the backup target ({reason}); check that the target is mounted and complete."


class TargetFailed(OverkeepError):
    """The backup target answered with an input or output error."""

    code = "target-failed"
    template = "The backup target failed on {path} ({reason}); look at the NFS server and the mount, and try again."
    retry = True


class WriterReplaced(OverkeepError):
    """Another writer has taken the place of this one."""

    code = "writer-replaced"
    template = "Another attempt writes {path} now; this one has stopped and changed nothing of it."


class ImageDamaged(OverkeepError):
    """A file that should be a QCOW2 image of a chain is not a sound one."""

    code = "image-damaged"
    template = "The image {file} cannot be used: {reason}; verify the repository and use another restore point."


class ImageUnreadable(OverkeepError):
    """The target answers, but not for all of an image or its digests."""

    code = "image-unreadable"
    template = (
        "{file} cannot be read on the backup target, which answers otherwise: {reason}; "
        "look at the disks of the server and at who may read the file, and use another restore point meanwhile."
    )


class ImageUnsupported(OverkeepError):
    """An image uses a feature that is not read."""

    code = "image-unsupported"
    template = "The image {file} uses {feature}, which is not supported; convert it with `qemu-img convert -O qcow2`."


class ImageTooLarge(ImageUnsupported):
    """An image of a disk that is larger than what can be handled; it may be a sound one."""

    code = "image-too-large"
    template = (
        "The image {file} is of a disk of {size} bytes, and more than {most} are not supported; "
        "make the disk smaller, or spread its data over several."
    )


class UnsafeImage(OverkeepError):
    """An image names something outside its folder: refused, it may be an attack."""

    code = "image-unsafe"
    template = (
        "The image {file} is refused: {reason}; "
        "images of a backup name nothing outside their own folder, so find out who changed it."
    )


class ImageShared(OverkeepError):
    """An image that should be merged away is the backing image of several others."""

    code = "image-shared"
    template = (
        "The image {file} cannot be removed: {images} are all built upon it; "
        "remove the points of all but one of them first."
    )
    status = 409


class MergeDiffers(OverkeepError):
    """The images are not those that an unfinished merge should find."""

    code = "merge-differs"
    template = (
        "The unfinished merge into {file} cannot be finished: {reason}; "
        "verify the repository, and restore the folder of the disk from a copy of the target if it was changed."
    )
    status = 409


class MergeGarbled(OverkeepError):
    """What was merged does not read as its digests say: nothing was removed for it."""

    code = "merge-garbled"
    template = (
        "The merge into {file} was given up, and all points read as before: {reason}; "
        "verify the images of the disk, and merge again once none of them is damaged."
    )


class DigestsDamaged(OverkeepError):
    """A file of digests is not a sound one."""

    code = "digests-damaged"
    template = "The digests in {file} cannot be used: {reason}; make them anew with `overkeep-mover digest`."


class BadRange(OverkeepError):
    """A range does not lie on the disk or on whole clusters: an error of the caller."""

    code = "bad-range"
    template = "The range at {offset} of {length} bytes does not fit {what} of {size} bytes; report this as a bug."


class SizesDiffer(OverkeepError):
    """The disk that is read does not fit the one that is written."""

    code = "sizes-differ"
    template = "A disk of {source} bytes cannot be copied to one of {sink} bytes; make the target disk as large."
    status = 409


class DiskUnreachable(OverkeepError):
    """There is no NBD server at the other end, or it does not answer."""

    code = "disk-unreachable"
    template = (
        "The disk to {verb} cannot be reached at {url} ({reason}); "
        "check that the VM's backup or transfer is still open on this host, and try again."
    )
    retry = True


class DiskRefused(OverkeepError):
    """The NBD server does not give the export."""

    code = "disk-refused"
    template = (
        "The NBD server at {url} does not give the disk to {verb} ({reason}); "
        "finalize the transfer in the Manager and run the job again."
    )


class DiskLost(OverkeepError):
    """The connection broke, or an answer did not come in time."""

    code = "disk-lost"
    template = (
        "The connection to the disk to {verb} at {url} was lost ({reason}); "
        "check the VM, its host and the transfer in the Manager, and try again."
    )
    retry = True


class DiskFailed(OverkeepError):
    """The NBD server failed a request."""

    code = "disk-failed"
    template = (
        "The storage of the VM failed to {verb} {length} bytes at {offset} of {url} ({reason}); "
        "look at the storage domain and at the events of the VM, and try again."
    )
    retry = True


class DiskFull(OverkeepError):
    """The storage domain of the disk that is written has no room."""

    code = "disk-full"
    template = (
        "The storage domain of the disk at {url} is full; free space in it, or restore to another, and try again."
    )
    status = 507


class DiskReadOnly(OverkeepError):
    """The disk that should be written is exported for reading only."""

    code = "disk-read-only"
    template = "The disk at {url} is open for reading only; finalize the transfer in the Manager and restore again."


class BadDiskAddress(OverkeepError):
    """What should be the address of an NBD server is none."""

    code = "bad-disk-address"
    template = (
        "{url} is not the address of a disk behind an NBD server ({reason}); "
        "write nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=/PATH."
    )
    status = 400


class FileMissing(OverkeepError):
    """A raw file or device is not there."""

    code = "file-missing"
    template = "There is no file or device {path} ({reason}); correct the path."
    status = 404


class FileForbidden(OverkeepError):
    """A raw file or device may not be opened or written."""

    code = "file-forbidden"
    template = "The file or device {path} may not be used as it should be ({reason}); look at its owner and its mode."
    status = 403


class FileFull(OverkeepError):
    """The file system of a raw file has no room left."""

    code = "file-full"
    template = "There is no room left for {path} ({reason}); free space there, or write to another place."
    status = 507


class FileFailed(OverkeepError):
    """A raw file or device failed, or is nothing that holds a disk."""

    code = "file-failed"
    template = "The file or device {path} cannot be used ({reason}); look at it and at the log of the system."


class NoChangedBlocks(OverkeepError):
    """Changed blocks were asked for, and the export does not tell them."""

    code = "no-changed-blocks"
    template = (
        "The disk at {url} does not tell which blocks changed ({reason}); compare it with its last restore point, "
        "or back it up in full."
    )
    status = 409


_KINDS: dict[int, type[OverkeepError]] = {
    errno.ENOSPC: TargetFull,
    errno.EDQUOT: TargetFull,
    errno.EFBIG: TargetFull,
    errno.EROFS: TargetReadOnly,
    errno.EACCES: TargetReadOnly,
    errno.EPERM: TargetReadOnly,
    errno.ESTALE: TargetStale,
    errno.ENOENT: TargetMissing,
    errno.ENOTDIR: TargetMissing,
}


_FILE_KINDS: dict[int, type[OverkeepError]] = {
    errno.ENOSPC: FileFull,
    errno.EDQUOT: FileFull,
    errno.EFBIG: FileFull,
    errno.EROFS: FileForbidden,
    errno.EACCES: FileForbidden,
    errno.EPERM: FileForbidden,
    errno.EBUSY: FileForbidden,
    errno.ENOENT: FileMissing,
    errno.ENOTDIR: FileMissing,
    errno.ENXIO: FileMissing,
}


def target_error(path: Path | str, error: OSError) -> OverkeepError:
    """Say what `error` of the operating system means for `path` on the target."""
    return _KINDS.get(error.errno or 0, TargetFailed)(path=path, reason=_said(error))


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


@contextmanager
def on_target(path: Path | str) -> Iterator[None]:
    """Turn every `OSError` of the block into the typed error for `path`."""
    try:
        yield
    except OSError as error:
        raise target_error(path, error) from error


@contextmanager
def on_file(path: Path) -> Iterator[None]:
    """Turn every `OSError` of the block into the typed error for `path`, a raw file or device that may be anywhere."""
    try:
        yield
    except OSError as error:
        raise _FILE_KINDS.get(error.errno or 0, FileFailed)(path=path, reason=_said(error)) from error
