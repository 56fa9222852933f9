from __future__ import annotations

import json

from tests.cli.conftest import Site


def test_limits_are_set_and_paused(site: Site) -> None:
    assert site("limit", "set", "total", "1")[1] == "Of the total, 1 VMs are worked on at once.\n"
    assert site("limit", "set", "host", "7")[1] == "Of host, 7 VMs are worked on at once.\n"
    told = "Of host host1, 7 VMs are worked on at once (the default)"
    assert site("limit", "pause", "host:host1")[1] == f"{told}; it is paused, nothing new begins.\n"
    assert site("limit", "resume", "host:host1")[1] == f"{told}.\n"
    found = json.loads(site("limit", "list", "--json")[1])
    assert [limit["resource"] for limit in found] == ["host", "domain", "target", "total"]
    assert "VMS AT ONCE" in site("limit", "list")[1]
    assert site("limit", "set", "total", "default")[1] == "Of the total, 32 VMs are worked on at once (the default).\n"


def test_windows(site: Site) -> None:
    day = ("--window", "mon-sun 00:00-24:00=1")
    out = site("limit", "set", "host", "4", *day, "--window", "sat 01:00-02:00=0", "--zone", "Europe/Berlin")[1]
    assert out.splitlines() == [
        "Of host, 1 VMs are worked on at once.",
        "mon-sun 00:00-24:00 (Europe/Berlin): 1",
        "sat 01:00-02:00 (Europe/Berlin): 0",
    ]
    site("limit", "set", "host", "5")
    [host, *_] = json.loads(site("limit", "list", "--json")[1])
    assert (host["capacity"], host["usual"], host["zone"]) == (1, 5, "Europe/Berlin")
    assert len(host["windows"]) == 2, "they stay"
    assert site("limit", "set", "host", "5", "--window", "")[1] == "Of host, 5 VMs are worked on at once.\n"
    site("limit", "set", "host", "5", "--window", "mon 08:00-18:00=0", "--zone", "Asia/Kolkata")
    assert "(Asia/Kolkata), then " in site("limit", "list")[1]


def test_what_is_refused(site: Site) -> None:
    for words in (
        ("set", "total", "many"),
        ("set", "total", "0"),
        ("pause", "host"),
        ("set", "disk:1", "2"),
        ("set", "host", "4", "--window", "08:00-18:00"),
        ("set", "host", "4", "--window", "by day=1"),
        ("set", "host", "4", "--window", "08:00-18:00=few"),
        ("set", "host", "4", "--zone", "Mars"),
    ):
        status, out, err = site("limit", *words)
        assert (status == 0, out, err.startswith("overkeep: ")) == (False, "", True), words


def test_a_job_shows_what_its_vm_waits_for(site: Site) -> None:
    site("workload", "create", "shop", "--vm", "web")
    site("limit", "pause", "target:nfs1")
    status, out, _ = site("backup", "shop", "--no-wait")
    assert status == 0
    job = out.strip()
    site.world.until(lambda: "web: waiting for target nfs1, which is paused" in site("job", "show", job)[1])
    site("limit", "resume", "target:nfs1")
    assert site("job", "follow", job)[0] == 0
