# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab stands on: networks, certificates, the NFS server, mounts of it, and the imageio daemons."""
