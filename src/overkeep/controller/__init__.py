# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads, durable jobs and the workflows that know all parties."""
