# SPDX-License-Identifier: GPL-3.0-or-later
"""The adapter to oVirt through its own SDK; nothing of the SDK leaves this package."""
