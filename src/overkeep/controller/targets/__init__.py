# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup targets as the controller reaches them."""
