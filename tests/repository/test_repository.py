# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a repository: identity, workloads, points, chains; and what damage does to it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.image import ChainReader
from overkeep.errors import NotFound, OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.repository import documents, layout
from overkeep.repository.errors import (
    ChainBroken,
    DocumentDamaged,
    RepositoryMissing,
    RepositoryTooNew,
    UnsafePath,
)
from overkeep.repository.manifest import Member, point_document
from overkeep.repository.repository import Repository
from overkeep.units import MIB

Backup = Callable[..., RestorePoint]


def manifest(repository: Repository, point: RestorePoint) -> Path:
    """Where the manifest of a point lies."""
    return repository.root / layout.point(point.workload_id, point.vm_id, point.id) / "point.json"


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_identity_is_made_once(tmp_path: Path) -> None:
    with pytest.raises(RepositoryMissing):
        Repository(tmp_path).open()
    with ThreadPoolExecutor(4) as pool:
        ids = {made.id for made in pool.map(lambda _: Repository(tmp_path).create(), range(8))}
    assert ids == {Repository(tmp_path).open().id}
    assert Repository(tmp_path).id in ids
    assert [path.name for path in tmp_path.iterdir()] == ["overkeep.json"]


def test_identity_is_made_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(95, "told to")

    monkeypatch.setattr(os, "link", refuse)
    made = Repository(tmp_path).create()
    assert Repository(tmp_path).create().id == made.id


def test_a_later_version_and_a_foreign_file_are_refused(repository: Repository) -> None:
    path = repository.root / "overkeep.json"
    edit(path, version=2)
    with pytest.raises(RepositoryTooNew):
        Repository(repository.root).open()
    with pytest.raises(RepositoryTooNew):
        Repository(repository.root).create()
    for content in ("", "{", "[]", '{"kind": "repository"}', "[" * 100_000, '{"kind": "point", "version": 1}'):
        path.write_text(content)
        with pytest.raises(DocumentDamaged):
            Repository(repository.root).open()


def test_workloads_keep_what_is_not_ours(repository: Repository) -> None:
    repository.put_workload("w1", name="web", members={"vm1": "a", "vm2": "b"}, policy={"keep": 3})
    path = repository.root / layout.workload("w1") / "workload.json"
    document = json.loads(path.read_text())
    document["members"][1]["colour"] = "red"
    path.write_text(json.dumps({**document, "owner": "somebody"}))
    repository.put_workload("w1", name="web", members={"vm2": "b2", "vm3": "c"})
    assert repository.workload("w1").members == (Member(id="vm2", name="b2"), Member(id="vm3", name="c"))
    assert repository.workload("w1").policy == {"keep": 3}
    document = json.loads(path.read_text())
    assert document["owner"] == "somebody"
    assert document["members"][0] == {"id": "vm2", "name": "b2", "colour": "red"}
    assert [workload.id for workload in repository.workloads()] == ["w1"]
    with pytest.raises(NotFound):
        repository.workload("w2")


def test_points_come_newest_last_and_by_vm(repository: Repository, backup: Backup) -> None:
    second, first, other = backup(2), backup(1), backup(3, vm="vm2")
    assert repository.points("w1", "vm1") == (first, second)
    assert repository.points(vm_id="vm2") == (other,)
    assert repository.points("w1") == repository.points() == (first, second, other)
    assert repository.points("w2") == ()
    assert repository.point("w1", "vm1", first.id) == first
    assert repository.configuration(second).ovf == "<ovf/>"
    assert repository.configuration(second).document == {"number": 2}


def test_a_damaged_manifest_hides_one_point_only(
    repository: Repository, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = backup(1), backup(2)
    manifest(repository, bad).write_text('{"kind": "point", "version": 1')
    with caplog.at_level(logging.WARNING):
        assert repository.points("w1", "vm1") == (good,)
    assert bad.id in caplog.text
    (damaged,) = repository.damaged("w1", "vm1")
    assert damaged.point_id == bad.id
    assert "not JSON" in damaged.reason
    assert repository.drafts() == (), "a damaged point is not a draft: a reconciler must not remove it"
    with pytest.raises(DocumentDamaged):
        repository.point("w1", "vm1", bad.id)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "other"},
        {"vm_id": "other"},
        {"images": [{}]},
        {"created": "yesterday"},
        {"created": "2026-11-22T22:00:00"},
        {"mode": "half"},
        {"job_id": 5},
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_damaged(
    repository: Repository, backup: Backup, fields: dict[str, Any]
) -> None:
    point = backup()
    edit(manifest(repository, point), **fields)
    with pytest.raises(DocumentDamaged):
        repository.point("w1", "vm1", point.id)


def test_backing_names_in_a_manifest_must_be_bare(repository: Repository, backup: Backup) -> None:
    point = backup()
    path = manifest(repository, point)
    for name in ("../x.qcow2", "/etc/shadow"):
        document = point_document(point)
        document["images"][0]["file"] = name
        path.write_text(json.dumps(document))
        with pytest.raises(DocumentDamaged):
            repository.point("w1", "vm1", point.id)


def test_a_manifest_that_is_damaged_after_it_was_read_is_found(
    repository: Repository, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    point = backup()
    assert repository.points() == repository.points() == (point,)
    path = manifest(repository, point)
    sound = path.read_text()
    path.write_text(sound.replace('"images"', '"pictures"'))
    with caplog.at_level(logging.WARNING):
        assert repository.points() == ()
    assert "point left out" in caplog.text
    path.write_text(sound)
    assert repository.points() == (point,)


def test_a_document_of_another_kind_is_none_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    documents.write(path, {**documents.envelope("draft"), "job_id": "j", "created": "2026-01-01T00:00:00+00:00"})
    assert documents.read(path, "draft") is not None
    with pytest.raises(DocumentDamaged):
        documents.read(path, "pin")


def test_a_vm_is_looked_for_in_the_workloads_that_have_it(
    repository: Repository, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = backup()
    for number in range(3):
        repository.put_workload(f"other{number}", name="other", members={})
    assert list(layout.workloads_with(repository.root, "vm1")) == ["w1"]
    assert repository.points(vm_id="vm1") == (point,)
    assert repository.points(vm_id="vm9") == ()
    monkeypatch.setattr(os, "stat", lambda *_args, **_options: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(OverkeepError):
        list(layout.workloads_with(repository.root, "vm1"))


def test_unknown_fields_of_a_manifest_are_kept(repository: Repository, backup: Backup) -> None:
    point = backup()
    path = manifest(repository, point)
    document = json.loads(path.read_text())
    document["later"] = {"a": 1}
    document["images"][0]["compression"] = "zstd"
    path.write_text(json.dumps(document))
    assert repository.point("w1", "vm1", point.id) == point
    again = point_document(point, json.loads(path.read_text()))
    assert again == document


def test_a_point_is_found_by_its_id_wherever_it_is(
    repository: Repository, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = backup(1), backup(2)
    copied = repository.root / "workloads" / "w2"
    shutil.copytree(repository.root / "workloads" / "w1", copied)
    for path in copied.glob("vms/*/points/*/point.json"):
        edit(path, workload_id="w2")
    found = repository.find(first.id)
    assert [(point.workload_id, point.id) for point in found] == [("w1", first.id), ("w2", first.id)]
    assert repository.find(first.id, places={("w1", "vm1"), ("w9", "vm1")}) == (first,)
    assert repository.find(first.id, places=()) == ()
    assert repository.find("../../w1") == ()
    assert (repository.exists("w1", "vm1", second.id), repository.exists("w1", "vm1", "other")) == (True, False)
    assert list(repository.workload_ids()) == ["w1", "w2"]
    assert list(repository.places("w1")) == [("vm1", first.id), ("vm1", second.id)]
    manifest(repository, second).write_text("{")
    with caplog.at_level(logging.WARNING):
        assert [point.workload_id for point in repository.find(second.id)] == ["w2"]
    assert "point left out" in caplog.text


def test_links_in_the_tree_are_not_followed(repository: Repository, backup: Backup, tmp_path: Path) -> None:
    point = backup()
    shutil.copytree(repository.root / "workloads" / "w1", tmp_path / "w2")
    (repository.root / "workloads" / "w2").symlink_to(tmp_path / "w2")
    assert repository.points() == (point,)
    with pytest.raises(UnsafePath):
        repository.point("w2", "vm1", point.id)
    path = manifest(repository, point)
    path.rename(tmp_path / "point.json")
    path.symlink_to(tmp_path / "point.json")
    with pytest.raises(DocumentDamaged):
        repository.point("w1", "vm1", point.id)


def test_a_chain_is_told_from_the_image_down(repository: Repository, backup: Backup) -> None:
    first = backup(1)
    second = backup(2, backing=first.images[0].file)
    third = backup(3, backing=second.images[0].file, size=6 * MIB)
    names = tuple(point.images[0].file for point in (third, second, first))
    assert repository.chain(third, "disk1") == names
    assert repository.chain(first, "disk1") == names[2:]
    with pytest.raises(NotFound):
        repository.chain(third, "disk9")
    (repository.root / repository.folder(second, "disk1") / names[1]).unlink()
    assert repository.chain(first, "disk1") == names[2:]
    with pytest.raises(ChainBroken, match=names[1]):
        repository.chain(third, "disk1")


def test_a_chain_that_leads_out_or_round_is_broken(repository: Repository, backup: Backup) -> None:
    point = backup()
    path = repository.root / repository.folder(point, "disk1") / point.images[0].file
    raw = bytearray(path.read_bytes())
    for name in (b"/etc/shadow", point.images[0].file.encode()):
        raw[8:20] = (1024).to_bytes(8, "big") + len(name).to_bytes(4, "big")
        raw[1024 : 1024 + len(name)] = name
        path.write_bytes(raw)
        with pytest.raises(ChainBroken):
            repository.chain(point, "disk1")


def test_qemu_img_alone_restores_from_a_copy_of_the_tree(
    repository: Repository, backup: Backup, tmp_path: Path
) -> None:
    first = backup(1)
    second = backup(2, backing=first.images[0].file)
    copied = tmp_path / "somewhere else"
    shutil.copytree(repository.root, copied)
    shutil.rmtree(repository.root)
    image = copied / repository.folder(second, "disk1") / second.images[0].file
    raw = tmp_path / "disk.raw"
    for command in (["info", "--backing-chain", image], ["check", "-q", image], ["convert", "-O", "raw", image, raw]):
        subprocess.run(["qemu-img", *map(str, command)], check=True, timeout=90, capture_output=True)
    reader = ChainReader(image.parent, image.name)
    content = bytearray(reader.size)
    reader.read_into(0, memoryview(content))
    reader.close()
    assert raw.read_bytes() == content
    assert Repository(copied).open().points("w1", "vm1") == (first, second)


def test_every_document_names_its_kind_version_and_writer(repository: Repository, backup: Backup) -> None:
    backup()
    repository.put_workload("w1", name="web", members={})
    found = {path.name: json.loads(path.read_text()) for path in repository.root.rglob("*.json")}
    assert {name: document["kind"] for name, document in found.items()} == {
        "overkeep.json": "repository",
        "workload.json": "workload",
        "point.json": "point",
        "vm.json": "vm",
    }
    assert all(document["version"] == 1 for document in found.values())
    assert all(document["writer"] == documents.WRITER for document in found.values())


def test_the_format_document_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "format" / "1.md").read_text()
    schemas = Path(documents.__file__).parent / "schemas"
    for path in schemas.glob("*.json"):
        schema = json.loads(path.read_text())
        names = set(schema["properties"])
        if path.stem == "point":
            names |= set(schema["properties"]["images"]["items"]["properties"])
        missing = {name for name in names if f"`{name}`" not in text}
        assert not missing, f"{path.stem}: {missing}"
