# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: each is a value that breaks something of a running lab and knows how it is mended."""
