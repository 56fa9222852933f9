# SPDX-License-Identifier: GPL-3.0-or-later
"""Composition roots of the services."""
