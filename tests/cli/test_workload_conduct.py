# SPDX-License-Identifier: GPL-3.0-or-later
"""How the VMs of a workload are backed up together, on the command line."""

from __future__ import annotations

import json

from tests.cli.conftest import Site


def test_how_many_at_once(site: Site) -> None:
    vms = ("--vm", "web", "--vm", "db")
    assert site("workload", "create", "shop", *vms, "--parallel", "1")[0] == 0
    assert "one after the other, in the order below" in site("workload", "show", "shop")[1]
    site("workload", "change", "shop", "--description", "d")
    assert json.loads(site("workload", "show", "shop", "--json")[1])["parallel"] == 1, "what is not given stays"
    site("workload", "change", "shop", "--parallel", "2")
    assert "2 of its VMs are backed up at once" in site("workload", "show", "shop")[1]
    site("workload", "change", "shop", "--parallel", "all")
    assert "at once, as far as the limits let them" in site("workload", "show", "shop")[1]
    for wrong in ("0", "many"):
        status, _, err = site("workload", "change", "shop", "--parallel", wrong)
        assert (status, f"--parallel {wrong} cannot be" in err) == (2, True)
