# SPDX-License-Identifier: GPL-3.0-or-later
"""Agentless backup and recovery for the virtual machines of oVirt."""

__version__ = "0.1.0"
