# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of VMs as the engine makes them: live by the VM's own QEMU, cold by bitmaps, hybrid by a snapshot."""
