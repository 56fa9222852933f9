# SPDX-License-Identifier: GPL-3.0-or-later
"""An oVirt in a box: real QEMU, real ovirt-imageio and a real NFS server behind a stand-in for the Engine."""

__version__ = "0.1.0"
