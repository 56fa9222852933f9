# SPDX-License-Identifier: GPL-3.0-or-later
"""The data mover: orders, their table, the HTTP server and its client."""
