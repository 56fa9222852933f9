# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the rows about some VMs are found one by one and put in order, or met on a walk along the order of a list."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa


def are_few(vm_ids: Collection[str] | None, limit: int, *, rate: int) -> bool:
    """Whether to find all rows: they are the more, and a walk to the end of a page is the shorter, the more VMs it is.

    None are all VMs; `rate` says how dear it is to find a row, and how cheap to meet one. Servers decide it wrongly:
    they take a walk for short because the page is.
    """
    return vm_ids is not None and len(vm_ids) ** 2 <= rate * limit


def found_first(query: sa.Select | sa.CompoundSelect) -> sa.CTE:  # type: ignore[type-arg] # of any rows
    """The rows of a query, which are found before they are put in order. SQLite does so by itself."""
    return query.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
