# SPDX-License-Identifier: GPL-3.0-or-later
"""The documented backup format on a target; knows nothing of oVirt."""
