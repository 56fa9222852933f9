# SPDX-License-Identifier: GPL-3.0-or-later
"""The block plane: extents, ends, the one copy loop, NBD, QCOW2."""
