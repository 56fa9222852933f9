# SPDX-License-Identifier: GPL-3.0-or-later
"""What each controller does by itself, in threads of its own."""
