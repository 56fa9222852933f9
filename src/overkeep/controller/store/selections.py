# SPDX-License-Identifier: GPL-3.0-or-later
"""Between rules that find VMs and the texts that the data base has of them."""

from __future__ import annotations

import json

from overkeep.model.selection import Rules, rule


def rules_text(rules: Rules) -> str:
    """The text of rules."""
    texts = {"include": [str(rule) for rule in rules.include], "exclude": [str(rule) for rule in rules.exclude]}
    return json.dumps({**texts, "disks": list(rules.disks)})


def rules_value(text: str) -> Rules:
    """The reverse."""
    found = json.loads(text)
    include, exclude = (tuple(map(rule, found.get(name, ()))) for name in ("include", "exclude"))
    return Rules(include=include, exclude=exclude, disks=tuple(found.get("disks", ())))
