# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines: QEMU processes, the small Linux that runs in them, and the saved states they are cloned from."""
