# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the repository: what of it is wrong, where, and what to do about it."""

from __future__ import annotations

from overkeep.errors import OverkeepError


class BadName(OverkeepError):
    """An id cannot be the name of a file or folder of the repository."""

    code = "bad-name"
    template = (
        "{name!r} cannot be the id of a {kind}; ids are 1 to 128 letters, digits, dots, dashes and underscores, "
        "and begin with a letter or digit."
    )
    status = 400


class UnsafePath(OverkeepError):
    """A path of the repository leads out of it."""

    code = "unsafe-path"
    template = (
        "{path} leads out of the repository through a symbolic link and is refused; remove the link, "
        "and find out who made it."
    )


class RepositoryMissing(OverkeepError):
    """There is no repository where one should be."""

    code = "repository-missing"
    template = "There is no repository in {path}; mount the right target, or make one on this target first."
    status = 404


class RepositoryTooNew(OverkeepError):
    """A later version of the format is needed."""

    code = "repository-too-new"
    template = "{path} has format version {version} and this release reads up to {known}; install a newer release."


class DocumentDamaged(OverkeepError):
    """A JSON document is not what the format says."""

    code = "document-damaged"
    template = "{path} is damaged: {reason}; restore the file from a copy of the target, or use another restore point."


class PointPinned(OverkeepError):
    """A restore point is to be removed that must stay."""

    code = "point-pinned"
    template = "Restore point {point} is pinned by {by} ({reason}); unpin it before it is removed."
    status = 409


class DraftIncomplete(OverkeepError):
    """A restore point cannot be committed: something of it is not there, or is not what it should be."""

    code = "draft-incomplete"
    template = "Restore point {point} was not committed: {reason}; run the backup again."


class DraftGone(OverkeepError):
    """The draft was removed while its job still worked on it."""

    code = "draft-gone"
    template = "The draft of restore point {point} was removed while it was being made; run the backup again."


class ChainBroken(OverkeepError):
    """The images of a disk do not form the chain that they should."""

    code = "chain-broken"
    template = (
        "Disk {disk} of restore point {point} cannot be read: {reason}; "
        "restore from an earlier point, and make a full backup."
    )
