# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of VMs: made, merged away, previewed and gone back to."""
