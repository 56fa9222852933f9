# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the data path against the tools that a user would pick instead, in pairs, one after the other."""
