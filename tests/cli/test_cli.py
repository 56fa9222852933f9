from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from overkeep.api import paging
from overkeep.blocks.errors import TargetFull
from overkeep.cli import exits, main, session
from overkeep.controller.events import Draft, Kind
from overkeep.model.findings import Finding, Verdict
from overkeep.mover.orders import CopyOrder, CopyResult

OVERKEEP = [sys.executable, "-c", "from overkeep.cli.main import run; run()"]


@pytest.fixture
def demo(site):
    assert site("workload", "create", "demo", "--vm", "web", "--vm", "db")[0] == 0
    return site


def one_sentence(err: str) -> str:
    [line] = err.strip().splitlines()
    assert line.startswith("overkeep: ")
    assert "Traceback" not in line
    return line


def test_workloads(site) -> None:
    status, out, _ = site("workload", "create", "demo", "--vm", "web", "--vm", "db")
    assert (status, out) == (0, "Workload demo has web, db and is backed up to nfs1.\n")
    assert "demo" in site("workload", "list")[1]
    shown = json.loads(site("workload", "show", "demo", "--json")[1])
    assert [m["vm_name"] for m in shown["members"]] == ["web", "db"]
    status, _, err = site("workload", "create", "demo", "--vm", "web")
    assert status == exits.CONFLICT
    assert "choose another name" in one_sentence(err)
    assert site("workload", "delete", "demo")[0] == 0
    assert json.loads(site("workload", "list", "--json")[1]) == []


def test_a_vm_that_does_not_exist(site) -> None:
    status, _, err = site("workload", "create", "demo", "--vm", "nobody")
    assert status == exits.NOT_FOUND
    assert "'nobody'" in one_sentence(err)


def test_backups_points_and_a_restore(demo) -> None:
    status, out, _ = demo("backup", "demo", "--full")
    assert status == 0
    assert "web/root: full, done" in out
    assert "a full backup was asked for" in out
    assert out.strip().splitlines()[-1].startswith("Backup of demo succeeded in ")
    status, out, _ = demo("backup", "demo", "--json")
    job = json.loads(out)
    assert job["state"] == "succeeded"
    assert {d["mode"] for v in job["vms"] for d in v["disks"]} == {"incremental"}
    points = json.loads(demo("points", "--workload", "demo", "--vm", "web", "--json")[1])
    assert [p["mode"] for p in points] == ["full", "incremental"]
    assert "incremental" in demo("points")[1]
    status, out, _ = demo("restore", points[0]["id"], "--vm", "web", "--name", "copy", "--start", "--json")
    assert status == 0, out
    assert json.loads(out)["state"] == "succeeded"
    assert "copy" in [v.name for v in demo.world.memory.vms()]
    status, _, err = demo("restore", points[0]["id"], "--vm", "web", "--name", "copy")
    assert status == exits.CONFLICT
    assert "choose another name" in one_sentence(err)


def test_jobs(demo) -> None:
    job = demo("backup", "demo", "--no-wait")[1].strip()
    status, out, _ = demo("job", "follow", job)
    assert status == 0
    assert "has restore point" in out
    assert job in demo("job", "list")[1]
    assert "Backup of demo succeeded" in demo("job", "show", job)[1]
    assert "s waiting for the Manager, 0.1 s copying, " in demo("job", "show", job)[1]
    assert json.loads(demo("job", "list", "--json")[1])[0]["id"] == job
    status, _, err = demo("job", "cancel", job)
    assert status == exits.CONFLICT
    assert "ended already" in one_sentence(err)


def test_cancel_waits_for_the_release(demo) -> None:
    demo.world.mover.held = True
    job = demo("backup", "demo", "--no-wait")[1].strip()
    demo.world.until(lambda: demo.world.mover.received)
    status, _, err = demo("job", "cancel", job)
    assert status == 0
    assert "cancelled" in err
    demo.world.assert_nothing_open()


def test_a_backup_that_fails_is_one_sentence_and_status_1(demo) -> None:
    def full(_: CopyOrder) -> CopyResult:
        raise TargetFull(path="/t", reason="No space left on device")

    demo.world.mover.outcome = full
    status, _, err = demo("backup", "demo")
    assert status == exits.FAILED
    [line] = err.strip().splitlines()
    assert "2 of 2 VMs have no sound restore point of this run" in line


def test_movers(site) -> None:
    assert site("movers")[0] == 0
    site.world.mover.reachable = False
    status, out, _ = site("movers")
    assert status == exits.FAILED
    assert "start overkeep-mover" in " ".join(out.split())
    assert json.loads(site("admin", "leftovers", "--json")[1]) == []


def test_without_a_session(site) -> None:
    session.forget()
    status, _, err = site("points")
    assert status == exits.NOT_LOGGED_IN
    assert "overkeep login" in one_sentence(err)


def test_an_expired_token(site) -> None:
    site.access.revoke("token")
    status, _, err = site("points")
    assert status == exits.NOT_LOGGED_IN
    assert "log in again" in one_sentence(err)


def test_a_controller_that_is_down(site) -> None:
    known = session.load()
    session.save(known.model_copy(update={"controller": "https://127.0.0.1:1"}))
    status, _, err = site("points")
    assert status == exits.UNREACHABLE
    assert "does not answer" in one_sentence(err)


def test_wrong_use(site) -> None:
    for words in (["bogus"], ["backup"], ["points", "--bogus"], ["restore", "x"]):
        status, _, err = site(*words)
        assert status == exits.USAGE
        assert "--help" in one_sentence(err)


def test_no_traceback_ever(site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.session.write_text("{")
    assert "log in again" in one_sentence(site("points")[2])
    monkeypatch.setattr(session, "load", lambda: 1 / 0)
    status, _, err = site("points")
    assert status == exits.FAILED
    assert "ZeroDivisionError" not in one_sentence(err)
    assert "ZeroDivisionError" in site.session.with_suffix(".log").read_text()


def test_the_session_is_private(site) -> None:
    assert site.session.stat().st_mode & 0o777 == 0o600


def test_admin_makes_keys(site, tmp_path: Path) -> None:
    words = ["--pki", str(tmp_path / "p"), "--address", "127.0.0.1"]
    assert site("admin", "init", *words)[0] == 0
    assert site("admin", "init", *words)[0] == exits.CONFLICT
    assert site("admin", "enrol", "host1", *words, "--out", str(tmp_path / "h"))[0] == 0
    assert {p.name for p in (tmp_path / "h").iterdir()} == {"cert.pem", "key.pem", "controller.pub"}


def test_version(site) -> None:
    assert site("--version")[1].startswith("overkeep 0")
    assert main.main(["--help"]) == 0


def test_ctrl_c_cancels_and_waits(demo) -> None:
    demo.world.mover.held = True
    with _started("backup", "demo") as child:
        demo.world.until(lambda: len(demo.world.mover.received) == 2)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=90)
    assert child.returncode == exits.INTERRUPTED, (out, err)
    assert "Traceback" not in err
    assert "nothing of it is open any more" in err
    demo.world.assert_nothing_open()


def test_a_second_ctrl_c_leaves_it_to_the_controller(demo) -> None:
    world = demo.world
    world.mover.held = True
    world.mover.hold_cancels()
    with _started("backup", "demo") as child:
        world.until(lambda: len(world.mover.received) == 2)
        child.send_signal(signal.SIGINT)
        assert "Cancelling" in child.stderr.readline()
        world.until(lambda: any(job.cancel_requested for job in world.store.jobs.all()))
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=90)
    assert child.returncode == exits.INTERRUPTED
    assert "The controller goes on cancelling" in err
    world.mover.let_cancels()
    world.until(lambda: not world.store.jobs.all(live=True))
    world.assert_nothing_open()


@contextmanager
def _started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The program, running; it does not outlive the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*OVERKEEP, *words], **pipes, text=True, env=dict(os.environ)) as child:
        try:
            yield child
        finally:
            child.kill()


def test_pins(demo) -> None:
    assert demo("backup", "demo")[0] == 0
    [point, *_] = json.loads(demo("points", "--vm", "web", "--json")[1])
    status, out, _ = demo("point", "pin", point["id"], "--vm", "web", "--reason", "audit of 2026")
    assert (status, out) == (0, f"Restore point {point['id']} of web is pinned.\n")
    assert "audit of 2026" in demo("points")[1]
    assert json.loads(demo("points", "--vm", "web", "--json")[1])[0]["pin"]["reason"] == "audit of 2026"
    assert demo("point", "unpin", point["id"], "--vm", "web")[0] == 0
    assert json.loads(demo("points", "--vm", "web", "--json")[1])[0]["pin"] is None
    status, _, err = demo("point", "pin", "nothing", "--reason", "x")
    assert status == exits.NOT_FOUND
    one_sentence(err)


def test_what_failed_is_tried_again(demo) -> None:
    demo.world.memory.hold("web-vm", "VM is locked.")
    status, out, _ = demo("backup", "demo", "--json")
    job = json.loads(out)
    assert (status, job["state"]) == (exits.FAILED, "partial")
    demo.world.memory.let_go("web-vm")
    status, out, _ = demo("job", "retry", job["id"])
    assert status == 0
    assert "web/root" in out
    assert "db/" not in out
    status, _, _ = demo("job", "retry", job["id"], "--no-wait")
    assert status == 0, "the first job stays partial: its VMs may be tried as often as is wanted"


def test_points_are_verified(demo) -> None:
    demo("backup", "demo")
    words = ("point", "verify", "--workload", "demo", "--vm", "web", "--share", "0.5")
    status, out, _ = demo(*words, "--seconds", "600")
    assert status == 0
    assert "Verification of web succeeded: 1 of 1 restore points were checked." in out
    assert "sound (50%)" in demo("points", "--vm", "web")[1]
    status, _, err = demo(*words, "--seconds", "0.000001")
    assert status == exits.FAILED
    assert "None of 1 restore points of VM 'web' could be checked" in err
    assert demo("job", "list", "--kind", "verification", "--json")[1].count('"verification"') == 2
    for seconds in ("0", "nan", "inf"):
        assert demo(*words, "--seconds", seconds)[0] == exits.USAGE


def test_a_point_is_deleted(demo) -> None:
    assert demo("backup", "demo")[0] == 0
    [point, *_] = json.loads(demo("points", "--vm", "web", "--json")[1])
    status, _, _ = demo("point", "delete", point["id"], "--vm", "web")
    assert status != 0, "nobody said yes"
    assert json.loads(demo("points", "--vm", "web", "--json")[1]) == [point]
    status, out, _ = demo("point", "delete", point["id"], "--vm", "web", "--yes")
    assert status == 0
    assert f"Removal of {point['id']} succeeded" in out
    assert json.loads(demo("points", "--vm", "web", "--json")[1]) == []


@pytest.mark.parametrize("arguments", [("point", "pin", "p", "--reason", ""), ("workload", "create", "", "--vm", "x")])
def test_arguments_that_no_document_takes(site, arguments: tuple[str, ...]) -> None:
    status, _, err = site(*arguments)
    assert status == exits.USAGE
    assert "cannot be used" in one_sentence(err)


def test_events(demo) -> None:
    assert demo("backup", "demo")[0] == 0
    status, out, _ = demo("events", "--vm", "web", "--kind", "vm")
    assert status == 0
    assert out.splitlines()[0].endswith("vm.started Backup of VM 'web' began")
    assert out.splitlines()[-1].endswith("vm.succeeded Backup of VM 'web' succeeded")
    status, out, _ = demo("events", "--since", "1h", "--limit", "2", "--json")
    assert [event["kind"] for event in json.loads(out)][-1] == "job.succeeded"
    assert len(json.loads(out)) == 2
    assert demo("events", "--level", "error")[1] == ""
    status, _, err = demo("events", "--since", "soon")
    assert status == exits.USAGE
    one_sentence(err)


def test_events_are_followed_until_ctrl_c(demo) -> None:
    demo.world.store.events.add(Draft(kind=Kind.JOB_NOTE, text="before"))
    with _started("events", "--follow", "--json", "--kind", "job.note") as child:
        assert json.loads(child.stdout.readline())["text"] == "before"
        demo.world.store.events.add(Draft(kind=Kind.JOB_NOTE, text="after"))
        assert json.loads(child.stdout.readline())["text"] == "after"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=90)
    assert child.returncode == exits.INTERRUPTED
    assert "Traceback" not in err


def test_jobs_are_filtered(demo) -> None:
    assert demo("backup", "demo")[0] == 0
    assert (
        len(json.loads(demo("job", "list", "--state", "succeeded", "--kind", "backup", "--vm", "web", "--json")[1]))
        == 1
    )
    assert json.loads(demo("job", "list", "--state", "failed", "--json")[1]) == []


def test_as_many_jobs_are_listed_as_are_asked_for(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the controller gives shorter pages."""
    monkeypatch.setattr(paging, "MOST_PARTS", 0)
    for _ in range(3):
        demo("backup", "demo")
    assert len(json.loads(demo("job", "list", "--json")[1])) == 3
    assert len(json.loads(demo("job", "list", "--limit", "2", "--json")[1])) == 2


def test_lists_are_shown_whole(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.cli.client._PAGE", 1)
    assert demo("backup", "demo")[0] == 0
    assert len(json.loads(demo("points", "--json")[1])) == 2


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_done_twice(
    demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = httpx.Client.request, []

    def losing(self: httpx.Client, method: str, path: str, **options: object) -> httpx.Response:
        answer = real(self, method, path, **options)
        if method == "POST" and not lost:
            lost.append(answer)
            raise httpx.ReadError("connection reset")
        return answer

    monkeypatch.setattr(httpx.Client, "request", losing)
    status, out, _ = demo("backup", "demo", "--json")
    assert (status, json.loads(out)["id"]) == (0, lost[0].json()["id"])
    assert len(demo.world.store.jobs.all()) == 1


def finding(verdict: Verdict, text: str) -> Finding:
    return Finding(area="target", subject="nfs1", verdict=verdict, text=text)


def test_check(site) -> None:
    site.findings += [finding(Verdict.OK, "Fine."), finding(Verdict.WARNING, "Nearly full: free space.")]
    status, out, _ = site("check")
    assert status == 0
    assert "Nearly full: free space." in out
    site.findings.append(finding(Verdict.FAILED, "It is not mounted; mount it."))
    status, out, _ = site("check", "--json")
    assert status == exits.FAILED
    assert [found["verdict"] for found in json.loads(out)] == ["ok", "warning", "failed"]


def test_check_is_for_administrators(site) -> None:
    site.access.add("token", user_id="ann", name="ann@internal")
    status, _, err = site("check")
    assert status == exits.FORBIDDEN
    one_sentence(err)


def test_check_without_a_controller(site, tmp_path: Path) -> None:
    """With its settings alone, on a machine where all that it needs is down."""
    (tmp_path / "password").write_text("secret")
    path = tmp_path / "controller.toml"
    path.write_text(
        f"""
state_dir = "{tmp_path}/state"
pki_dir = "{tmp_path}/pki"
[engine]
url = "https://127.0.0.1:1/ovirt-engine/api"
ca_file = "{tmp_path}/pki/ca.pem"
username = "svc@internal"
password_file = "{tmp_path}/password"
[[target]]
name = "nfs1"
source = "server:/export"
mountpoint = "{tmp_path}/mnt"
mount_command = ["false"]
"""
    )
    status, out, err = site("check", "--config", str(path), "--json")
    assert (status, err) == (exits.FAILED, "")
    found = {(each["area"], each["subject"]): each for each in json.loads(out)}
    assert found["certificate", "api.pem"]["verdict"] == "ok"
    for key in (("controller", "state"), ("target", "nfs1"), ("account", "svc@internal"), ("mover", "all hosts")):
        assert found[key]["verdict"] == "failed", key
    assert "secret" not in out
    status, _, err = site("check", "--config", str(tmp_path / "nothing"))
    assert status == exits.FAILED
    one_sentence(err)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(site, shell: str) -> None:
    status, out, _ = site("completion", shell)
    assert status == 0
    assert "_OVERKEEP_COMPLETE" in out
    assert out.startswith("#")


def test_completion_completes() -> None:
    """As bash asks."""
    asked = {"_OVERKEEP_COMPLETE": "complete_bash", "COMP_WORDS": "overkeep job re", "COMP_CWORD": "2"}
    done = subprocess.run(
        OVERKEEP, capture_output=True, text=True, timeout=60, env={**os.environ, **asked}, check=False
    )
    assert done.stdout.split() == ["retry"], done


def test_completion_script_is_bash(site, tmp_path: Path) -> None:
    script = tmp_path / "overkeep"
    script.write_text(site("completion", "bash")[1])
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "overkeep").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from overkeep.cli.main import run; run()' \"$@\"\n"
    )
    (bin_ / "overkeep").chmod(0o755)
    words = "COMP_WORDS=(overkeep sched); COMP_CWORD=1"
    ask = f"source {script}; {words}; _overkeep_completion overkeep; echo ${{COMPREPLY[@]}}"
    env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.stdout.split() == ["scheduler"], done
