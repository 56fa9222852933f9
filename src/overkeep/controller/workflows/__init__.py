# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs: thin deterministic bodies over steps that may be repeated."""
