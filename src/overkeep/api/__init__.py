# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST interface of the controller."""
