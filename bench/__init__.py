# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements, run by `make bench` and `make bench-...`: programs, never assertions of tests."""
