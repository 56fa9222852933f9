# SPDX-License-Identifier: GPL-3.0-or-later
"""An NFSv3 export as a POSIX path where the kernel has no NFS client: FUSE over libnfs."""
