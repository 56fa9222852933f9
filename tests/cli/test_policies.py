from __future__ import annotations

import json

from overkeep.units import KIB, MIB
from tests.cli.conftest import Site


def test_a_policy_from_its_making_to_its_end(site: Site) -> None:
    made = site(
        *("policy", "create", "nightly", "--schedule", "daily at 22:00", "--schedule", "monthly on last at 04:00"),
        *("--zone", "Europe/Berlin", "--blackout", "sat 00:00-24:00", "--keep-daily", "7", "--keep-weekly", "4"),
        *("--full-every", "30", "--compression", "zstd", "--level", "5", "--start", "2026-01-01", "--retries", "2"),
        *("--kind", "hybrid", "--cluster-size", "256K"),
    )
    assert made == (0, "Policy nightly is made.\n", "")
    _, out, _ = site("policy", "list")
    assert "7 daily, 4 weekly" in out
    _, out, _ = site("policy", "show", "nightly")
    runs = "daily at 22:00 (Europe/Berlin); from 2026-01-01; not sat 00:00-24:00"
    for told in (runs, "after 30 incrementals", "hybrid", "zstd, level 5", "256.0 KiB"):
        assert told in out
    assert site("workload", "create", "shop", "--vm", "web")[0] == 0
    _, out, _ = site("workload", "set-policy", "shop", "nightly")
    assert out.startswith("Workload shop has policy nightly; next run: 20")
    assert "Workload shop has policy nightly; next run: 20" in site("workload", "show", "shop")[1]
    status, _, err = site("policy", "delete", "nightly")
    assert (status, "workload shop" in err) == (5, True)
    assert "it is paused" in site("workload", "pause", "shop")[1]
    assert "next run" in site("workload", "resume", "shop")[1]
    assert "is paused" in site("scheduler", "pause")[1]
    assert "The scheduler runs." in site("scheduler", "resume")[1]
    _, out, _ = site("scheduler", "status", "--json")
    assert json.loads(out)["workloads"][0]["policy"] == "nightly"
    assert "has no policy" in site("workload", "set-policy", "shop", "--none")[1]
    assert site("policy", "delete", "nightly") == (0, "Policy nightly is removed.\n", "")


def test_what_is_not_given_stays(site: Site) -> None:
    site("policy", "create", "p", "--schedule", "hourly", "--zone", "Asia/Kolkata", "--window", "20:00-06:00")
    site("policy", "edit", "p", "--keep-last", "5", "--full-every", "always", "--read-back", "0.5")
    _, out, _ = site("policy", "edit", "p", "--schedule", "every 4 hours", "--name", "q", "--json")
    changed = json.loads(out)
    assert (changed["name"], changed["version"], changed["retention"]["last"]) == ("q", 3, 5)
    assert [(s["when"], s["zone"], s["windows"]) for s in changed["schedules"]] == [
        ("every 4 hours", "Asia/Kolkata", [])
    ]
    assert (changed["full_every"], changed["copying"]["read_back"]) == (0, 0.5)
    assert changed["backup_kind"] == "legacy", "nothing changes for those who do not ask"
    assert changed["copying"]["cluster_size"] == 64 * KIB
    _, out, _ = site("policy", "edit", "q", "--cluster-size", "2M", "--json")
    assert json.loads(out)["copying"]["cluster_size"] == 2 * MIB
    _, out, _ = site("policy", "edit", "q", "--kind", "hybrid", "--json")
    assert json.loads(out)["backup_kind"] == "hybrid"
    _, out, _ = site("policy", "edit", "q", "--keep-last", "6", "--json")
    assert json.loads(out)["backup_kind"] == "hybrid"
    assert json.loads(out)["copying"] == {**changed["copying"], "cluster_size": 2 * MIB}
    assert site("policy", "edit", "q", "--kind", "cold")[0] == 2
    _, out, _ = site("policy", "edit", "q", "--window", "mon 01:00-02:00", "--full-every", "never", "--json")
    assert json.loads(out)["schedules"][0]["windows"] == ["mon 01:00-02:00"]
    assert json.loads(out)["full_every"] is None
    _, out, _ = site("policy", "edit", "q", "--window", "", "--json")
    assert json.loads(out)["schedules"][0]["windows"] == []


def test_what_cannot_be_is_said(site: Site) -> None:
    for words, told in (
        (("--full-every", "often"), "--full-every often"),
        (("--start", "tomorrow"), "--start tomorrow"),
        (("--level", "99"), "level"),
        (("--cluster-size", "96K"), "cluster_size"),
        (("--cluster-size", "4M"), "cluster_size"),
        (("--cluster-size", "large"), "--cluster-size large is no size"),
        (("--verify", "0%"), "--verify 0% cannot be"),
        (("--verify", "some"), "--verify some cannot be"),
        (("--schedule", "whenever"), "'whenever'"),
    ):
        status, out, err = site("policy", "create", "p", *words)
        assert (status, out) == (2, "")
        assert told in err
    site("workload", "create", "shop", "--vm", "web")
    assert site("workload", "set-policy", "shop")[0] == 2
    assert site("workload", "set-policy", "shop", "nothing")[0] == 7


def test_previews(site: Site) -> None:
    site("policy", "create", "p", "--schedule", "daily at 22:00", "--keep-last", "2")
    _, out, _ = site("policy", "preview", "p", "--days", "30")
    assert "After 30 runs" in out
    assert "never more than 2" in out
    assert "last, 2 of 2" in out
    site("workload", "create", "shop", "--vm", "web")
    for _ in range(3):
        assert site("backup", "shop")[0] == 0
    _, out, _ = site("policy", "preview", "p", "--workload", "shop")
    assert [line.split()[4] for line in out.splitlines()[1:]] == ["kept", "kept", "removed"]
    assert len(site("points")[1].splitlines()) == 4


def test_new_points_are_verified_and_shown_as_such(site: Site) -> None:
    site("policy", "create", "p", "--verify", "5%")
    assert "5.000% of each new point" in site("policy", "show", "p")[1]
    assert json.loads(site("policy", "edit", "p", "--verify", "full", "--json")[1])["verify"] == 1
    assert "all of each new point" in site("policy", "show", "p")[1]
    site("workload", "create", "shop", "--vm", "web")
    assert site("backup", "shop")[0] == 0
    site("workload", "set-policy", "shop", "p")
    assert site("backup", "shop")[0] == 0
    [point] = [one for one in json.loads(site("points", "--json")[1]) if one["verification"]]
    site.world.rotten = {image["file"] for image in point["images"]}
    assert site("backup", "shop")[0] != 0
    _, never, sound, bad = site("points")[1].splitlines()
    assert (never.split()[-2], "sound (100%)" in sound, "NOT SOUND" in bad) == ("-", True, True)
    site("policy", "edit", "p", "--verify", "none")
    assert "nothing" in site("policy", "show", "p")[1]
