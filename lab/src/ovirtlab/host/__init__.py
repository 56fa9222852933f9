# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host of the lab does: the verbs that VDSM has for the Engine, on real parts."""
