from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from overkeep.config import ControllerConfig
from overkeep.controller.background.peers import DECLARED_DEAD, Peers
from overkeep.controller.databases import Databases
from overkeep.controller.durable import Durable
from overkeep.controller.records import Job
from overkeep.controller.store import Store
from overkeep.errors import ConfigError
from tests.controller.site import Site
from tests.controller.world import disk, succeeded, vm
from tests.postgres import Postgres, driver

pytestmark = pytest.mark.xdist_group("controllers")  # a pulse is a matter of time: not two of them at once


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def age(store: Store, executor_id: str, seconds: float) -> None:
    """Let a controller have beaten for the last time some seconds ago."""
    with store._engine.begin() as connection:
        older = sa.text("UPDATE controller SET beat = beat - :s WHERE executor_id = :e")
        connection.execute(older, {"s": seconds, "e": executor_id})


def test_who_does_not_beat_is_declared_dead(store: Store) -> None:
    found = store.controllers
    found.join("a", "here:1")
    found.join("b", "there:2")
    age(store, "b", 25)
    with found.burying("a", 30) as (living, dead):
        assert (living(), dead) == ({"a", "b"}, ())
    age(store, "b", 10)
    with found.burying("a", 30) as (living, dead):
        assert (living(), dead) == ({"a"}, ("there:2",))
    assert [found.beat("a"), found.beat("b")] == [True, False]
    age(store, "a", 100)
    with found.burying("a", 30) as (living, dead):  # late itself, which it knows best
        assert (living(), dead) == ({"a"}, ())
    found.leave("a")
    assert found.living() == frozenset()


def test_who_finds_another_burying_does_not_wait_for_it(postgres: Postgres) -> None:
    """It may sleep in there; who waited would be late with its own beats."""
    store = Store(driver(postgres.new_database()))
    store.controllers.join("a", "here:1")
    store.controllers.join("b", "there:2")
    age(store, "b", 31)
    with store.controllers.burying("a", 60) as (living, _), store.controllers.burying("a", 30) as found:
        assert (living(), found[0](), found[1]) == ({"a", "b"}, frozenset(), ())
    store.close()


class Pulse:
    """The peers of controller `a`, by a clock that stands still; what was taken up, and whether it lost its place."""

    def __init__(self, store: Store) -> None:
        self.now = 0.0
        self.taken: list[frozenset[str]] = []
        self.lost = 0
        self.peers = Peers(
            store.controllers,
            "a",
            take_up=lambda living: self.taken.append(living()),
            stopping=threading.Event(),
            ttl=30,
            lost=self._lose,
            clock=lambda: self.now,
        )
        store.controllers.join("a", "here:1")

    def _lose(self) -> None:
        self.lost += 1

    def at(self, *seconds: float) -> None:
        for self.now in seconds:
            self.peers.beat()


def test_a_dead_controllers_work_is_taken_up_after_a_ttl(store: Store) -> None:
    pulse = Pulse(store)
    store.controllers.join("b", "there:2")
    age(store, "b", 31)
    pulse.at(5, 10, 15, 20, 25)
    assert store.controllers.living() == {"a", "b"}  # it has not looked for long enough
    pulse.at(30)
    assert pulse.taken == [{"a"}]
    pulse.at(35)
    assert pulse.taken == [{"a"}, {"a"}]


def test_one_that_joins_while_others_look_is_found_alive(store: Store) -> None:
    """It may have begun work by the time they list what is under way."""
    store.controllers.join("a", "here:1")
    with store.controllers.burying("a", 30) as (living, _):
        assert living() == {"a"}
        if store._engine.dialect.name == "postgresql":  # a transaction of SQLite shuts others out
            store.controllers.join("b", "there:2")
            assert living() == {"a", "b"}


def test_after_an_outage_everybody_has_a_ttl_to_be_heard(store: Store) -> None:
    pulse = Pulse(store)
    pulse.at(*range(5, 60, 5))
    store.controllers.join("b", "there:2")
    age(store, "b", 100)
    before = len(pulse.taken)
    pulse.at(100, 105, 110, 115, 120, 125)
    assert store.controllers.living() == {"a", "b"}
    assert len(pulse.taken) == before
    pulse.at(130)
    assert store.controllers.living() == {"a"}


def test_one_that_was_declared_dead_ends(store: Store) -> None:
    pulse = Pulse(store)
    store.controllers.leave("a")
    pulse.at(5)
    assert (pulse.lost, pulse.taken) == (1, [])


def test_the_data_base_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("se/cret\n")
    given = {
        "engine": {"url": "u", "ca_file": "c", "username": "n", "password_file": "p"},
        "target": [{"name": "nfs1", "source": "s:/e", "mountpoint": "/m"}],
        "state_dir": tmp_path,
    }
    alone = Databases.of(ControllerConfig.model_validate(given))
    assert (alone.store, alone.shared) == (f"sqlite:///{tmp_path}/controller.sqlite", False)
    several = {**given, "database": "postgresql://o@db:5432/k", "database_password_file": tmp_path / "password"}
    found = Databases.of(ControllerConfig.model_validate(several))
    assert (found.store, found.jobs, found.shared) == (
        "postgresql+psycopg://o:se%2Fcret@db:5432/k",
        "postgresql://o:se%2Fcret@db:5432/k",
        True,
    )
    assert "cret" not in repr(found)
    with pytest.raises(ConfigError, match="database_password_file"):
        Databases.of(ControllerConfig.model_validate({**given, "database": "postgresql://o:x@db/k"}))
    with pytest.raises(ConfigError, match="No such file"):
        Databases.of(ControllerConfig.model_validate({**several, "database_password_file": tmp_path / "no"}))


@pytest.fixture
def site(tmp_path: Path, postgres: Postgres) -> Iterator[Site]:
    with Site(tmp_path, postgres.new_database()) as site:
        site.add(*(vm(name, disk(f"{name}-root")) for name in ("a", "b", "c")))
        yield site


def check(site: Site, job: Job, *, points: int) -> None:
    """Everything of a job is there once, and nothing else."""
    ended = site.finish(job, seconds=90)
    assert succeeded(ended), f"{ended.failure}\n{site.logs()}"
    found = site.repository.points()
    assert sorted(point.vm_id for point in found) == sorted(["a-vm", "b-vm", "c-vm"] * points)
    site.until(lambda: site.memory.open_backups() == () and site.store.held.orphans() == (), seconds=90)
    site.assert_nothing_open()
    site.assert_checkpoints_sound()
    assert site.store.admission.used() == {}


@pytest.mark.timeout(180)
def test_another_controller_ends_the_job_of_one_that_was_killed_in_mid_copy(site: Site) -> None:
    first = site.begin_controller()
    site.mover.held = True
    job = site.start_backup()
    site.until(lambda: len(site.mover.running()) == 3)
    site.begin_controller()
    first.end()
    site.mover.release()
    check(site, job, points=1)
    assert len(site.mover.received) == 3  # the orders of the dead one were followed, not given again


@pytest.mark.timeout(180)
def test_a_controller_that_sleeps_past_its_lease_ends_when_it_wakes(site: Site) -> None:
    first = site.begin_controller()
    site.mover.held = True
    job = site.start_backup()
    site.until(lambda: len(site.mover.running()) == 3)
    site.begin_controller()
    first.signal(signal.SIGSTOP)
    site.mover.release()
    check(site, job, points=1)
    first.signal(signal.SIGCONT)
    assert first.wait(90) == DECLARED_DEAD
    again = site.start_backup()
    check(site, again, points=2)


@pytest.mark.timeout(180)
def test_one_that_was_declared_dead_although_it_lives_holds_still_until_it_learns_of_it(site: Site) -> None:
    """Nobody hears its beats. The other one sleeps as soon as it has the work, so that only this one could do it."""
    first = site.begin_controller()
    site.mover.held = True
    job = site.start_backup()
    site.until(lambda: len(site.mover.running()) == 3)
    second = site.begin_controller()
    silent = site.folder / f"silent-{first.pid}"
    silent.touch()
    site.until(lambda: "taking up 3 unfinished" in site.log(1))
    site.until(lambda: "it begins nothing before the next" in site.log(0))
    second.signal(signal.SIGSTOP)
    site.mover.release()
    time.sleep(3)  # twice as long as a look at an order lasts
    assert site.repository.points() == ()
    assert "finalize_transfer" not in site.memory.calls
    second.signal(signal.SIGCONT)
    check(site, job, points=1)
    assert first.alive
    silent.unlink()
    assert first.wait(90) == DECLARED_DEAD


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", [0.1, 0.4, 0.8, 1.2])
def test_whenever_one_of_two_is_killed_no_point_is_lost(site: Site, moment: float) -> None:
    children = [site.begin_controller(), site.begin_controller()]
    job = site.start_backup()
    time.sleep(moment)  # the instant of the death is what is tried out
    children[0].end()
    check(site, job, points=1)


@pytest.mark.timeout(180)
def test_one_that_stops_leaves_its_work_to_the_other_at_once(site: Site) -> None:
    first = site.begin_controller()
    site.mover.held = True
    job = site.start_backup()
    site.until(lambda: len(site.mover.running()) == 3)
    site.begin_controller()
    first.signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert len(site.store.controllers.living()) == 1
    site.mover.release()
    check(site, job, points=1)


def test_steps_outlast_an_outage_of_the_data_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.controller.durable._OUTAGE_PAUSE", 0.01)
    tries = []

    def step() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise sa.exc.OperationalError("SELECT 1", {}, Exception("the server closed the connection"))
        return "done"

    found = []
    durable = Durable(tmp_path, queues={"q": 0})
    durable.workflow("body", lambda: found.append(Durable.step("s", step)))
    durable.start()
    try:
        durable.submit("body", "a", queue="q")
        deadline = time.monotonic() + 90
        while not found:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        durable.stop()
    assert (found, len(tries)) == (["done"], 3)
