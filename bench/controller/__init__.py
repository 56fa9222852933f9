# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller itself costs, with a Manager and movers in memory that answer at once."""
