# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads with rules on the command line."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Site


@pytest.fixture(autouse=True)
def tagged(site: Site) -> None:
    for name in ("web", "db"):
        site.world.memory.describe(f"{name}-vm", tags=("prod",))


def test_rules_from_the_preview_to_the_backup(site: Site) -> None:
    rules = ("--include", "tag=prod", "--exclude", "name=db")
    _, out, _ = site("workload", "preview", *rules)
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["no", "db", "Default", "name=db"],
        ["yes", "web", "Default", "tag=prod"],
    ]
    assert site("workload", "create", "shop", *rules, "--without-disk", "web:x*")[:2] == (
        0,
        "Workload shop has web and is backed up to nfs1.\n",
    )
    _, out, _ = site("workload", "show", "shop")
    for told in ("VMs are found by: tag=prod", "VMs are left out by: name=db", "Without disks: web:x*", "rule"):
        assert told in out
    assert site("backup", "shop")[0] == 0
    assert "web" in site("points", "--workload", "shop")[1]


def test_what_is_not_given_stays(site: Site) -> None:
    site("workload", "create", "shop", "--vm", "web", "--exclude", "name=x", "--without-disk", "a*")

    def change(*words: str) -> dict[str, object]:
        status, out, err = site("workload", "change", "shop", *words, "--json")
        assert status == 0, err
        return dict(json.loads(out))

    assert change("--description", "d")["rules"] == {"include": [], "exclude": ["name=x"], "disks": ["a*"]}
    changed = change("--add-vm", "db", "--include", "tag=prod", "--drop", "exclude")
    assert changed["rules"] == {"include": ["tag=prod"], "exclude": [], "disks": ["a*"]}
    assert [member["vm_name"] for member in changed["members"]] == ["web", "db"]  # type: ignore[attr-defined] # JSON
    changed = change("--remove-vm", "web", "--include", "name=none")
    assert [member["vm_name"] for member in changed["members"]] == ["db"]  # type: ignore[attr-defined] # JSON
    assert changed["description"] == "d"
    assert site("workload", "preview", "shop")[1].splitlines()[1].split()[:2] == ["yes", "db"]
    status, _, err = site("workload", "change", "shop", "--remove-vm", "web")
    assert (status, "web is not named in workload 'shop'" in err) == (2, True)
    status, _, err = site("workload", "change", "shop", "--include", "web*")
    assert (status, "write it as" in err) == (2, True)
