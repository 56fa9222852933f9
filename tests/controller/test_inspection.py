from __future__ import annotations

import dataclasses
import datetime as dt
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overkeep.config import ControllerConfig, EngineConfig, WatchedTarget
from overkeep.controller import inspection
from overkeep.controller.inspection import PERMITS, Inspection, Surroundings
from overkeep.controller.movers import enrolment
from overkeep.engine.errors import EngineUnreachable, LoginRefused
from overkeep.errors import NotFound
from overkeep.model.findings import Finding, Verdict, worst
from overkeep.mover.signing import ClockSkew
from overkeep.repository.looking import Look, Looks
from overkeep.repository.mounts import Mounts
from overkeep.repository.probe import probe
from overkeep.testing.access import MemoryAccess
from overkeep.testing.engine import MemoryEngine
from overkeep.testing.mover import MemoryMover
from overkeep.units import utc_now
from tests.controller.world import OneMover, disk, vm
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]


class Installation:
    """All that a controller needs, sound, until a test spoils it. The target is a folder that is always mounted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.pki = enrolment.init(folder / "pki", ["127.0.0.1"])
        (folder / "state").mkdir()
        (folder / "target").mkdir()
        monkeypatch.setattr(Mounts, "ensure", lambda _self, _name, **_: folder / "target")
        monkeypatch.setattr("overkeep.model.probes.OWNER", (os.getuid(), os.getgid()))
        self.engine = MemoryEngine()
        self.engine.add_vm(vm("web", disk("root")))
        self.access = MemoryAccess()
        self.access.add("token", user_id="svc")
        self.access.allow("svc", "web-vm", *PERMITS)
        self.mover = MemoryMover("host1")
        self.database = ""
        self.log_in: Callable[[], str] = lambda: "token"

    def look(self) -> dict[tuple[str, str], Finding]:
        settings = ControllerConfig(
            state_dir=self.folder / "state",
            pki_dir=self.folder / "pki",
            database=self.database,
            engine=EngineConfig(
                url="https://engine/ovirt-engine/api",
                ca_file=self.folder / "x",
                username="svc@internal",
                password_file=self.folder / "x",
            ),
            target=(WatchedTarget(name="nfs1", source="s:/e", mountpoint=self.folder / "target"),),
        )
        around = Surroundings(
            settings=settings,
            engine=self.engine,
            access=self.access,
            movers=OneMover({"host-1": self.mover}),
            log_in=self.log_in,
        )
        return {(finding.area, finding.subject): finding for finding in Inspection(around, patience=10).run()}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    return Installation(tmp_path, monkeypatch)


def expect(site: Installation, area: str, subject: str, verdict: Verdict, *words: str) -> None:
    """One finding is so, and all others are well."""
    found = site.look()
    finding = found.pop((area, subject))
    assert finding.verdict is verdict, finding
    for word in words:
        assert word in finding.text
    assert worst(found.values()) is Verdict.OK, found


def test_all_is_well(site: Installation) -> None:
    found = site.look()
    assert worst(found.values()) is Verdict.OK, found
    assert list(found) == [
        ("controller", "state"),
        ("certificate", "ca.pem"),
        ("certificate", "api.pem"),
        ("certificate", "order-key.pem"),
        ("manager", "https://engine/ovirt-engine/api"),
        ("account", "svc@internal"),
        ("target", "nfs1"),
        ("mover", "host1"),
    ]
    assert list((site.folder / "target").iterdir()) == [], "nothing is left there"
    assert all(finding.text.endswith(".") for finding in found.values())


def test_a_state_folder_that_is_not_there(site: Installation) -> None:
    (site.folder / "state").rmdir()
    expect(site, "controller", "state", Verdict.FAILED, "state_dir", "is not there")


def test_a_data_base_that_is_damaged(site: Installation) -> None:
    path = site.folder / "state" / "controller.sqlite"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE t (a TEXT)")
        base.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
    base.close()
    expect_ok = site.look()["controller", "state"]
    assert expect_ok.verdict is Verdict.OK
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    expect(site, "controller", "state", Verdict.FAILED, "is damaged", "put back a copy")


def test_a_data_base_that_controllers_share(site: Installation, postgres: Postgres) -> None:
    site.database = postgres.new_database()
    expect(site, "controller", "data base", Verdict.OK, "lets the controller in")
    site.database = site.database.replace("overkeep@", "stranger@")
    expect(site, "controller", "data base", Verdict.FAILED, "stranger", "database_password_file")
    site.database = "postgresql://overkeep@127.0.0.1:1/nothing"
    expect(site, "controller", "data base", Verdict.FAILED, "refused", "check that its server runs")


def test_little_space(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_LITTLE", 1 << 62)
    expect(site, "controller", "state", Verdict.WARNING, "which is little")


@pytest.mark.parametrize(
    ("later", "verdict", "words"),
    [
        (dt.timedelta(days=810), Verdict.WARNING, "make a new one before"),
        (dt.timedelta(days=900), Verdict.FAILED, "it expired"),
        (dt.timedelta(days=-2), Verdict.FAILED, "set the clock"),
    ],
)
def test_certificates(
    site: Installation, monkeypatch: pytest.MonkeyPatch, later: dt.timedelta, verdict: Verdict, words: str
) -> None:
    now = utc_now() + later
    monkeypatch.setattr(inspection, "utc_now", lambda: now)
    found = site.look()["certificate", "api.pem"]
    assert found.verdict is verdict
    assert words in found.text


@pytest.mark.parametrize(("content", "words"), [(None, "overkeep admin init"), (b"x", "it is damaged")])
def test_a_certificate_that_is_none(site: Installation, content: bytes | None, words: str) -> None:
    site.pki.api_cert.unlink()
    if content is not None:
        site.pki.api_cert.write_bytes(content)
    expect(site, "certificate", "api.pem", Verdict.FAILED, words)


def test_a_key_that_others_can_read(site: Installation) -> None:
    site.pki.order_key.chmod(0o644)
    expect(site, "certificate", "order-key.pem", Verdict.FAILED, "chmod 600")


MANAGER = "https://engine/ovirt-engine/api"


def test_a_manager_that_is_too_old(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.engine, "test", lambda: "4.3.10-1.el7")
    expect(site, "manager", MANAGER, Verdict.FAILED, "4.3.10", "upgrade it")


def test_a_manager_that_is_down(site: Installation) -> None:
    site.engine.fail("test", EngineUnreachable(url="u", reason="no route"))
    expect(site, "manager", MANAGER, Verdict.FAILED, "no route", "check that its service runs")


def test_a_password_that_is_wrong(site: Installation) -> None:
    def refused() -> str:
        raise LoginRefused(url="u", username="svc@internal", words="no")

    site.log_in = refused
    expect(site, "account", "svc@internal", Verdict.FAILED, "refused the login")


def test_permits_that_are_missing_are_named(site: Installation) -> None:
    site.access.forbid("svc", "web-vm", "run_vm", "create_disk")
    expect(site, "account", "svc@internal", Verdict.FAILED, "create_disk, run_vm", "on the whole system")


def test_a_superuser_is_enough(site: Installation) -> None:
    site.access.add("token", user_id="root", admin=True)
    expect(site, "account", "svc@internal", Verdict.OK, "more than it needs")


def test_rights_are_not_known_without_a_vm(site: Installation) -> None:
    site.engine.remove_vm("web-vm")
    expect(site, "account", "svc@internal", Verdict.WARNING, "before the Manager has a VM")


def test_the_permits_are_those_of_the_installation_guide() -> None:
    section = (ROOT / "docs/guide/install.md").read_text().partition("## The service account")[2].partition("\n## ")[0]
    assert [permit for permit in PERMITS if f"`{permit}`" not in section] == []


def test_a_target_whose_files_belong_to_others(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.model.probes.OWNER", (36, 36) if os.getuid() != 36 else (1, 1))
    expect(site, "target", "nfs1", Verdict.WARNING, "must belong to 36:36", "all_squash")


def test_a_target_that_is_nearly_full(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.model.probes.LOW", 1.1)
    expect(site, "target", "nfs1", Verdict.WARNING, "nearly full")


def test_a_target_that_cannot_be_mounted(tmp_path: Path) -> None:
    target = WatchedTarget(name="nfs1", source="s:/e", mountpoint=tmp_path / "m", mount_command=("false",))
    [found] = Looks().at_all([Look(area="target", subject="nfs1", act=lambda: [probe(Mounts((target,)), "nfs1")])])
    assert found.verdict is Verdict.FAILED
    assert "s:/e" in found.text


def test_a_target_that_reads_back_something_else(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda _handle, buffers, _offset: len(buffers[0]))  # zeroes
    found = site.look()["target", "nfs1"]
    assert found.verdict is Verdict.FAILED
    assert "read back differently" in found.text
    assert list((site.folder / "target").iterdir()) == []


def test_a_mover_that_is_down(site: Installation) -> None:
    site.mover.reachable = False
    expect(site, "mover", "host1", Verdict.FAILED, "overkeep-mover")


def test_a_mover_of_another_version(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    health = dataclasses.replace(site.mover.health(), version="9.9", time=None)
    monkeypatch.setattr(site.mover, "health", lambda: health)
    expect(site, "mover", "host1", Verdict.WARNING, "9.9", "bring both to the same")


@pytest.mark.parametrize("off", [20.0, -20.0])
def test_a_clock_that_is_off(site: Installation, off: float) -> None:
    site.mover.clock_off = off
    expect(site, "mover", "host1", Verdict.WARNING, "20 s off", "chrony")


def test_a_mover_that_refuses_signatures(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise ClockSkew(host="host1", seconds=300)

    monkeypatch.setattr(site.mover, "check", refuse)
    found = site.look()["mover", "host1"]
    assert found.verdict is Verdict.FAILED
    assert "300 seconds apart" in found.text


def test_what_a_mover_finds_is_told(site: Installation) -> None:
    found = Finding(area="target", subject="nfs1", verdict=Verdict.FAILED, text="It is not mounted.")
    site.mover.findings = (found,)
    expect(site, "target", "host1: nfs1", Verdict.FAILED, "not mounted")


def test_hosts_that_are_down_have_no_mover(site: Installation) -> None:
    site.engine.known_hosts = [dataclasses.replace(host, status="maintenance") for host in site.engine.known_hosts]
    expect(site, "mover", "all hosts", Verdict.FAILED, "activate one")


def test_what_hangs_keeps_nothing_from_being_told() -> None:
    hang = threading.Event()

    def never() -> Iterator[Finding]:
        hang.wait(60)
        yield from ()

    def well() -> Iterator[Finding]:
        yield Finding(area="b", subject="y", verdict=Verdict.OK, text="Fine.")

    begun, before = time.monotonic(), threading.active_count()
    looks = Looks(patience=0.3)
    asked = [Look(area="a", subject="x", act=never), Look(area="b", subject="y", act=well)]
    for _ in range(3):
        found = looks.at_all(asked)
        assert [finding.verdict for finding in found] == [Verdict.FAILED, Verdict.OK]
        assert "did not answer within 0.3 s" in found[0].text
    assert threading.active_count() <= before + 1, "what hangs is not begun again"
    assert time.monotonic() - begun < 5
    hang.set()


def test_a_fault_of_ours_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[Finding]:
        raise ZeroDivisionError("secret")
        yield

    def known() -> Iterator[Finding]:
        raise NotFound(kind="host", name="h", how="overkeep movers")
        yield

    found = Looks().at_all([Look(area="a", subject="x", act=broken), Look(area="b", subject="y", act=known)])
    assert [finding.verdict for finding in found] == [Verdict.FAILED] * 2
    assert "secret" not in found[0].text
    assert "'h'" in found[1].text
    assert "ZeroDivisionError" in caplog.text
