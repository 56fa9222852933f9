# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with the Manager, by cause; an expired token is `overkeep.errors.Unauthorized`."""

from __future__ import annotations

from overkeep.errors import NotFound, OverkeepError


class EngineError(OverkeepError):
    """Base of the errors of the port to the Manager."""

    code = "engine-error"


class EngineUnreachable(EngineError):
    """No answer came: the network, the name, or the service."""

    code = "engine-unreachable"
    template = (
        "The Manager at {url} cannot be reached: {reason}; "
        "check that its service runs and that this machine can connect to it."
    )
    retry = True
    status = 503


class EngineNotTrusted(EngineError):
    """TLS says that it is not the Manager we were told of."""

    code = "engine-not-trusted"
    template = (
        "The certificate of the Manager at {url} is not accepted: {reason}; "
        "check the name in the URL and that {ca_file} holds the Manager's CA certificate."
    )
    status = 502


class LoginRefused(EngineError):
    """The Manager does not take the name and the password."""

    code = "login-refused"
    template = (
        "The Manager at {url} refused the login of {username!r}: {words}; "
        "check the name, which has the form user@profile, and the password."
    )
    status = 401


class BadAnswer(EngineError):
    """Something answered that does not speak the Manager's API."""

    code = "engine-bad-answer"
    template = (
        "What answers at {url} does not speak the Manager's API: {reason}; "
        "check that the URL ends in /ovirt-engine/api and look into the Manager's log."
    )
    status = 502


class EngineRefused(EngineError):
    """The Manager understood and said no; `words` are its own. Subclasses are the causes that matter to us."""

    code = "engine-refused"
    template = "The Manager refused to {act}: {words} Correct what it names and try again."
    status = 409


class VmLocked(EngineRefused):
    """A backup or another operation holds a lock on the VM or on a disk."""

    code = "vm-locked"
    template = (
        "The Manager refused to {act}, because the VM or one of its disks is being backed up or otherwise locked "
        "in the Manager ({words}); wait until that operation has ended, or end it."
    )
    retry = True


class Busy(EngineRefused):
    """The Manager is in the middle of something that ends by itself."""

    code = "engine-busy"
    template = "The Manager cannot {act} just now ({words}); try again in a moment."
    retry = True


class NotFoundInEngine(EngineRefused):
    """The Manager does not know the thing (any longer)."""

    code = "not-in-engine"
    template = "The Manager refused to {act}, because it does not know {what}; look it up in the Manager."
    status = 404


class EventNumberTaken(EngineRefused):
    """Another event of ours has the number already."""

    code = "event-number-taken"
    template = "The Manager has another event of number {number}; it is written under the next one."


class CheckpointInvalid(EngineRefused):
    """The checkpoint is lost, broken, or does not cover what was asked; a full backup is needed."""

    code = "checkpoint-invalid"
    template = "The Manager refused to {act} since the last checkpoint ({words}); make a full backup."


class PermissionDenied(EngineRefused):
    """The service account, or the user whose token is used, lacks a right."""

    code = "engine-permission-denied"
    template = (
        "The Manager does not permit {username!r} to {act} ({words}); "
        "give the account the role that the installation guide names."
    )
    status = 403


class GuestNotFrozen(EngineRefused):
    """The guest cannot hold its file systems still: it has no agent, or the agent does not answer or cannot."""

    code = "guest-not-frozen"
    template = (
        "The file systems of the guest could not be frozen ({words}); "
        "install qemu-guest-agent in it, see that it runs, and look at what its freeze hooks say."
    )


class GuestNotThawed(EngineRefused):
    """A guest that may hold still does not take the word that lets it go on."""

    code = "guest-not-thawed"
    template = (
        "The guest of VM {vm_id} could not be thawed ({words}); it is tried again. "
        "Until then it may not write: look at its agent, or reset the VM."
    )
    retry = True


class BackupFailed(EngineError):
    """A backup ended in the Manager without success."""

    code = "backup-failed"
    template = "The backup {backup_id} of VM {vm!r} failed in the Manager: {words} Look at its events and try again."
    retry = True
    status = 502


class TransferFailed(EngineError):
    """Access to a disk ended in the Manager without success."""

    code = "transfer-failed"
    template = "The access to disk {disk!r} failed in the Manager: {words} Look at its events and try again."
    retry = True
    status = 502


class NotReadyInTime(EngineError):
    """The Manager took the request but did not finish within the deadline."""

    code = "engine-too-slow"
    template = (
        "The Manager did not finish to {act} within {seconds:g} s (last seen: {seen}); "
        "look at its events for {what}, then try again."
    )
    retry = True
    status = 504


class NoSuchVm(NotFound):
    """No VM has the name or the id."""

    code = "no-such-vm"
    template = (
        "The Manager has no VM {name!r} (upper and lower case matter); look its name up in the Manager, "
        "and check that the service account of Overkeep may see it."
    )


class AmbiguousName(EngineError):
    """Several VMs have the name."""

    code = "ambiguous-name"
    template = "The Manager has {count} VMs named {name!r}; give the id of the one you mean: {ids}."
    status = 409

    @property
    def vm_ids(self) -> tuple[str, ...]:
        """The ids of the VMs that have the name."""
        return tuple(self.fields["ids"].split(", "))


class NameInUse(EngineRefused):
    """A VM that we did not make has the name."""

    code = "vm-name-in-use"
    template = "The Manager already has a VM named {name!r} that is not ours to complete; choose another name."


class DiskInUse(EngineRefused):
    """A disk that we did not make has the id, or the disk belongs to another VM."""

    code = "disk-in-use"
    template = "The disk {disk!r} in the Manager is not ours to use: {words}; start the restore anew."
