# SPDX-License-Identifier: GPL-3.0-or-later
"""What jobs do to VMs, guests and restore points: the parts that workflows are made of."""
