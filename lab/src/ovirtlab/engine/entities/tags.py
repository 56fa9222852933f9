# SPDX-License-Identifier: GPL-3.0-or-later
"""The tags that VMs, hosts, templates and users carry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Tag:
    id: str
    name: str
    description: str = ""
    parent_id: str = ""
