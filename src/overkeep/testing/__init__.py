# SPDX-License-Identifier: GPL-3.0-or-later
"""In-memory twins that pass the same contract suites as the real parts."""
