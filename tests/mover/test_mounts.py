# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets as mounts: lines of the kernel as a table of cases, and real mounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from overkeep.blocks.errors import TargetReadOnly
from overkeep.config import MOUNT_OPTIONS, TargetConfig
from overkeep.repository import mounts
from overkeep.repository.mounts import (
    MountFailed,
    Mounts,
    TargetFolderMissing,
    TargetNotMounted,
    TargetOptions,
    TargetWrongSource,
    find_mount,
    parse_mountinfo,
    require_mounted,
    require_writable,
)

NFS = (
    "99 42 0:61 / /srv/my\\040target rw,relatime shared:5 - nfs 10.0.0.1:/vol/my\\134x "
    "rw,vers=3,rsize=1048576,hard,nolock,proto=tcp,timeo=600,sec=sys\n"
)


def test_a_line_of_mountinfo() -> None:
    (found,) = parse_mountinfo(NFS)
    assert found.mountpoint == Path("/srv/my target")
    assert (found.source, found.kind) == ("10.0.0.1:/vol/my\\x", "nfs")
    assert {"rw", "relatime", "hard", "vers=3"} <= found.options


@pytest.mark.parametrize(
    ("wanted", "shown", "missing"),
    [
        (MOUNT_OPTIONS["nfs3"], "rw,vers=3,hard,nolock,proto=tcp", ""),
        (MOUNT_OPTIONS["nfs3"], "rw,vers=3,soft,nolock,proto=tcp", "hard"),
        (MOUNT_OPTIONS["nfs3"], "rw,vers=4.2,hard,proto=tcp", "vers=3"),
        ("nfsvers=4,hard", "rw,vers=4.2,hard,proto=tcp", ""),
        ("vers=3,proto=tcp", "rw,vers=3,hard,proto=tcp6", ""),
        ("noatime,rsize=1", "rw,vers=3,hard", ""),
    ],
)
def test_options_of_the_kernels_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, shown: str, missing: str
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"99 42 0:61 / {tmp_path}/t rw,relatime - nfs server:/export {shown}\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", table)
    target = TargetConfig(name="t", source="server:/export/", mountpoint=tmp_path / "t", options=wanted)
    if not missing:
        assert require_mounted(target) == tmp_path / "t"
        return
    with pytest.raises(TargetOptions, match=missing):
        require_mounted(target)


def test_a_path_is_taken_as_it_is_and_must_be_there(tmp_path: Path) -> None:
    target = TargetConfig(name="t", kind="path", mountpoint=tmp_path / "t", mount_command=("false",))
    with pytest.raises(TargetFolderMissing, match="is not there"):
        Mounts((target,)).ensure("t")
    (tmp_path / "t").mkdir()
    assert Mounts((target,)).ensure("t") == tmp_path / "t"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"source": "s:/e", "mountpoint": "mnt"}, "begins with /"),
        ({"mountpoint": "/mnt"}, "needs `source`"),
        ({"kind": "path", "mountpoint": "/mnt", "source": "s:/e"}, "neither `source` nor `options`"),
        ({"kind": "nfs5", "mountpoint": "/mnt", "source": "s:/e"}, "'nfs3', 'nfs4' or 'path'"),
    ],
)
def test_settings_that_contradict_one_another(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TargetConfig.model_validate({"name": "t", **settings})


def test_kinds_of_nfs_have_their_own_options() -> None:
    for kind, version in (("nfs3", "vers=3"), ("nfs4", "vers=4")):
        target = TargetConfig.model_validate({"name": "t", "kind": kind, "source": "s:/e", "mountpoint": "/mnt"})
        assert version in target.mount_options.split(",")
        assert "hard" in target.mount_options.split(",")


def test_a_bare_folder_is_no_target(tmp_path: Path) -> None:
    target = TargetConfig(name="t", source="server:/export", mountpoint=tmp_path, mount_command=("true",))
    with pytest.raises(TargetNotMounted, match="not mounted") as caught:
        Mounts((target,)).ensure("t")
    assert str(tmp_path) in str(caught.value)
    assert "server:/export" in str(caught.value)


def test_a_mount_command_that_fails(tmp_path: Path) -> None:
    target = TargetConfig(name="t", source="server:/export", mountpoint=tmp_path / "t", mount_command=("false",))
    with pytest.raises(MountFailed, match="status 1") as caught:
        Mounts((target,)).ensure("t")
    assert caught.value.retry
    missing = target.model_copy(update={"mount_command": ("no-such-program",)})
    with pytest.raises(MountFailed, match="not installed"):
        Mounts((missing,)).ensure("t")


def test_something_else_is_mounted(make_target: Any) -> None:
    target = make_target().config
    assert Mounts((target,)).ensure("nfs1") == target.mountpoint
    other = target.model_copy(update={"source": "other:/export"})
    with pytest.raises(TargetWrongSource, match="server:/nfs1"):
        Mounts((other,)).ensure("nfs1")


def test_a_target_is_mounted_once_when_needed(make_target: Any) -> None:
    target = make_target().config
    known = Mounts((target,))
    known.ensure("nfs1")
    assert sum(mount.mountpoint == target.mountpoint for mount in parse_mountinfo(mounts._MOUNTINFO.read_text())) == 1
    mounts.proc.run(["umount", str(target.mountpoint)], timeout=90)
    assert find_mount(target.mountpoint) is None
    assert known.ensure("nfs1") == target.mountpoint  # the fixture unmounts it
    found = find_mount(target.mountpoint)
    assert found is not None
    assert found.source == "server:/nfs1"


def test_a_read_only_mount(make_target: Any) -> None:
    target = make_target()
    require_writable(target.root)
    mounts.proc.run(["mount", "-o", "remount,ro", str(target.root)], timeout=90)
    with pytest.raises(TargetReadOnly, match="read-only"):
        require_writable(target.root)


def test_a_link_to_a_mount_is_found(make_target: Any, tmp_path: Path) -> None:
    target = make_target()
    link = tmp_path / "link"
    link.symlink_to(target.root.parent)
    assert find_mount(link / target.root.name) is not None
    assert find_mount(target.root / "inside") is None
