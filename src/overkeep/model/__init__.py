# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure values and decisions: no I/O, no clock."""
