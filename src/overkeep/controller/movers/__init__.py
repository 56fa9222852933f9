# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the movers are, how they become known, and which of them gets work."""
