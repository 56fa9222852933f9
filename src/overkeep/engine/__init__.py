# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything oVirt: the port to the Manager and its adapters."""
