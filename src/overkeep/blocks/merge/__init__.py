# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging: images of removed points become one with the image above them (docs/format/1.md, "Removing points")."""
