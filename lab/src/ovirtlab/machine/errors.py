# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of machines and hosts."""

from __future__ import annotations


class HostError(Exception):
    """A verb failed; `code` is VDSM's or libvirt's number for it where there is one."""

    def __init__(self, text: str, *, code: int = 0) -> None:
        self.code = code
        super().__init__(text)


SILENT_AGENT = 19  # VDSM's NonResponsiveGuestAgent: there is no agent, or it does not answer
OPERATION_FAILED = 1  # libvirt's VIR_ERR_INTERNAL_ERROR: what it says when a bitmap to be deleted is not there
LOCKED = 68  # libvirt's VIR_ERR_OPERATION_TIMEOUT: the state change lock is held by another job
NO_CHECKPOINT = 103  # libvirt's VIR_ERR_NO_DOMAIN_CHECKPOINT: libvirt has not been told of this checkpoint
INCONSISTENT_CHECKPOINT = 109  # libvirt's VIR_ERR_CHECKPOINT_INCONSISTENT: a bitmap is missing or broken
CONFLICT = 409  # ovirt-imageio: operations are still running
