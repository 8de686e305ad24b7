"""Checkpoints: whole or not there, and a damaged one never hides a good one."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.errors import RunDirectoryError, SpecMismatch
from impala_redis.common.files import write_atomically
from impala_redis.common.records import checkpoint
from impala_redis.common.records.checkpoint import (
    CheckpointError,
    Tensors,
    discard_after,
    load,
    save,
)
from impala_redis.common.records.rundir import RunDirectory

TENSORS: Tensors = {
    "model.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "optimizer.step": np.array(3, np.int64),
    "rng": np.arange(7, dtype=np.uint8),
    "empty": np.zeros((0, 4), np.float32),
}


def save_at(directory: Path, updates: int, keep: int = 10) -> Path:
    """A checkpoint whose tensors and facts tell when it was made."""
    tensors: Tensors = {"weight": np.full(3, updates, np.float32)}
    return save(directory, updates, tensors, {"updates": updates}, keep)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_checkpoint_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    # given
    facts: dict[str, Any] = {"version": 7, "returns": [1.5, -2.25, 1e-300], "spec": '{"a": 1}'}

    # when
    path = save(tmp_path / "new" / "checkpoints", 12, TENSORS, facts, keep=3)
    found = load(path.parent)

    # then
    assert path.name == "checkpoint-000000000012.json"
    assert found.path == path
    assert {name: found.facts[name] for name in facts} == facts
    assert set(found.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[name], tensor, strict=True)


def test_tensors_of_any_memory_order_are_saved_alike(tmp_path: Path) -> None:
    # given
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)

    # when
    save(tmp_path, 1, {"transposed": matrix.T, "strided": matrix[:, ::2]}, {}, keep=1)
    found = load(tmp_path).tensors

    # then
    np.testing.assert_array_equal(found["transposed"], matrix.T)
    np.testing.assert_array_equal(found["strided"], matrix[:, ::2])


def test_the_newest_checkpoint_wins(tmp_path: Path) -> None:
    # given: 100 comes before 20 by the alphabet of unpadded names
    for updates in (3, 20, 100):
        save_at(tmp_path, updates)

    # when / then
    assert load(tmp_path).facts["updates"] == 100


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    # when
    for updates in range(1, 6):
        save_at(tmp_path, updates, keep)

    # then
    kept = range(6 - keep, 6)
    assert names(tmp_path) == [
        f"checkpoint-{n:012d}.{kind}" for n in kept for kind in ("json", "safetensors")
    ]


def test_saving_the_same_update_again_replaces_it(tmp_path: Path) -> None:
    # given
    save(tmp_path, 5, {"weight": np.zeros(3, np.float32)}, {"round": 1}, keep=2)

    # when
    save(tmp_path, 5, {"weight": np.ones(3, np.float32)}, {"round": 2}, keep=2)

    # then
    found = load(tmp_path)
    assert found.facts["round"] == 2
    assert found.tensors["weight"].tolist() == [1, 1, 1]
    assert len(names(tmp_path)) == 2


def test_other_files_are_neither_loaded_nor_removed(tmp_path: Path) -> None:
    # given
    for name in ("checkpoint-9.json", "checkpoint-best.json", "notes.json", "checkpoint-.txt"):
        (tmp_path / name).write_text("{}")
    others = names(tmp_path)

    # when
    save_at(tmp_path, 1, keep=1)
    save_at(tmp_path, 2, keep=1)

    # then
    assert load(tmp_path).facts["updates"] == 2
    assert set(others) < set(names(tmp_path))


def test_it_loads_by_directory_run_directory_or_either_file(tmp_path: Path) -> None:
    # given
    old = save_at(tmp_path / "checkpoints", 1)
    save_at(tmp_path / "checkpoints", 2)

    # when / then
    assert load(tmp_path).facts["updates"] == 2
    assert load(tmp_path / "checkpoints").facts["updates"] == 2
    assert load(old).facts["updates"] == 1
    assert load(old.with_suffix(".safetensors")).facts["updates"] == 1


def test_a_moved_checkpoint_is_found_where_it_is_now(tmp_path: Path) -> None:
    # given
    save_at(tmp_path / "before", 4)

    # when
    (tmp_path / "before").rename(tmp_path / "after")

    # then
    assert load(tmp_path / "after").facts["updates"] == 4


# Damage.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [truncate, flip, empty, remove, grow, replace_by_directory])
def test_damaged_tensors_are_passed_over_with_a_warning(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    # given
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    spoil(newest.with_suffix(".safetensors"))

    # when
    with caplog.at_level(logging.WARNING):
        found = load(tmp_path)

    # then
    assert found.facts["updates"] == 1
    assert found.tensors["weight"].tolist() == [1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "checkpoint-000000000002" in caplog.text


GARBAGE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"checkpoint"',
    b"7",
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b"{}",
    b'{"format": 1}',
    b'{"format": 1, "tensors": "checkpoint-000000000001.safetensors"}',
    b'{"format": 1, "tensors": 5, "sha256": ""}',
    b'{"format": 1, "tensors": null, "sha256": ""}',
    b'{"format": 1, "tensors": "", "sha256": ""}',
    b'{"format": 1, "tensors": "..", "sha256": ""}',
    b'{"format": 1, "tensors": "a\\u0000b", "sha256": ""}',
    b'{"format": 1, "tensors": "checkpoint-000000000001.safetensors", "sha256": null}',
    b'{"format": 0, "tensors": "checkpoint-000000000001.safetensors", "sha256": ""}',
    b'{"format": null, "tensors": "checkpoint-000000000001.safetensors", "sha256": ""}',
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:70]))
def test_a_garbled_json_is_passed_over_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    newest.write_bytes(data)

    # when
    with caplog.at_level(logging.WARNING):
        found = load(tmp_path)

    # then
    assert found.facts["updates"] == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(("format", "made_by"), [(2, "impala-redis 0.9.1"), (77, None)])
def test_a_checkpoint_in_a_form_to_come_is_named_and_not_passed_over(
    tmp_path: Path, format: int, made_by: str | None
) -> None:
    # given
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    newest.write_text(json.dumps({"format": format, "made_by": made_by}))

    # when / then
    said = f"{newest} was made by {made_by or 'another version of impala-redis'} (format {format}, "
    with pytest.raises(SpecMismatch, match=re.escape(said) + r".*; install that version$"):
        load(tmp_path)


def test_tensors_that_are_not_safetensors_are_passed_over(tmp_path: Path) -> None:
    # given: the digest fits
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    newest.with_suffix(".safetensors").write_bytes(b"garbage")
    document = json.loads(newest.read_text())
    document["sha256"] = hashlib.sha256(b"garbage").hexdigest()
    newest.write_text(json.dumps(document))

    # when / then
    assert load(tmp_path).facts["updates"] == 1


def test_a_json_cannot_name_tensors_outside_its_directory(tmp_path: Path) -> None:
    # given
    elsewhere = save_at(tmp_path / "elsewhere", 1)
    here = tmp_path / "here" / elsewhere.name
    here.parent.mkdir()
    document = json.loads(elsewhere.read_text())
    document["tensors"] = f"../elsewhere/{document['tensors']}"
    here.write_text(json.dumps(document))

    # when / then
    with pytest.raises(CheckpointError, match=r"here/checkpoint-0+1\.safetensors cannot be read"):
        load(here)


def test_tensors_without_their_json_are_no_checkpoint(tmp_path: Path) -> None:
    # given: what a crash between the two files leaves
    save_at(tmp_path, 1)
    save_at(tmp_path, 2).unlink()

    # when / then
    assert load(tmp_path).facts["updates"] == 1


@pytest.mark.parametrize("name", [".", "missing", "missing.json", "missing.safetensors"])
def test_where_there_is_no_checkpoint_that_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no (run directory or )?checkpoint"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a/result.json", "is no checkpoint; name the run directory a$"),
        ("a/metrics.jsonl", "is no checkpoint; name the run directory a$"),
        ("a/report.html", "is no checkpoint; name the run directory a$"),
        ("a/logs/learner.log", "is no checkpoint; name the run directory a$"),
        ("model.pt", "is no checkpoint; name a directory that holds a run$"),
        ("list.json", "is no checkpoint; name a directory that holds a run$"),
        ("a/logs", "there is no checkpoint in a/logs; name the run directory a$"),
        (".", "there is no checkpoint in .; name one in it: a, young$"),
        ("young", "there is no checkpoint in young; its learner has written none$"),
        ("nothing", "there is no checkpoint in nothing; name a directory that holds a run$"),
    ],
)
def test_what_is_no_checkpoint_leads_to_the_run_directory(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run with all its files, one without a checkpoint, and strange things beside them
    monkeypatch.chdir(tmp_path)
    save_at(Path("a/checkpoints"), 1)
    for folder in ("a/logs", "young", "nothing"):
        Path(folder).mkdir()
    Path("a/metrics.jsonl").write_text("{}\n")
    Path("a/result.json").write_text('{"status": "solved"}')
    for file in ("a/report.html", "a/logs/learner.log", "young/config.toml", "model.pt"):
        Path(file).touch()
    Path("list.json").write_text("[1]")

    # when / then
    with pytest.raises(CheckpointError, match=way):
        load(Path(name))


@pytest.mark.parametrize(("facts", "resumes"), [({}, 0), ({"resumes": 3}, 3)])
def test_a_checkpoint_knows_how_often_its_run_was_resumed(
    facts: dict[str, Any], resumes: int, tmp_path: Path
) -> None:
    save(tmp_path, 1, {}, facts, keep=1)
    assert load(tmp_path).resumes == resumes


def test_a_copy_of_a_checkpoint_may_have_any_name(tmp_path: Path) -> None:
    save_at(tmp_path, 7).rename(tmp_path / "best.json")
    assert load(tmp_path / "best.json").facts["updates"] == 7


@pytest.mark.parametrize("folder", ["checkpoints", "logs"])
def test_a_run_is_not_begun_or_resumed_in_a_folder_of_another(folder: str, tmp_path: Path) -> None:
    # given a run, and its folder named in its place
    save_at(tmp_path / "a" / "checkpoints", 1)
    inside = tmp_path / "a" / folder
    inside.mkdir(exist_ok=True)

    # then it is refused with the way to the run; beside no run the name is as good as any
    for resume in (False, True):
        with pytest.raises(RunDirectoryError, match=r"is a folder of the run in .*/a; give that"):
            RunDirectory(inside).prepare("learner", resume)
    RunDirectory(tmp_path / folder).prepare("learner", resume=True)


def test_when_none_is_usable_that_is_said(tmp_path: Path) -> None:
    # given
    for updates in (1, 2):
        flip(save_at(tmp_path, updates).with_suffix(".safetensors"))

    # when / then
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints in .* is usable"):
        load(tmp_path)


def test_a_damaged_checkpoint_that_is_named_is_not_replaced_by_another(tmp_path: Path) -> None:
    # given
    save_at(tmp_path, 1)
    newest = save_at(tmp_path, 2)
    flip(newest.with_suffix(".safetensors"))

    # when / then
    with pytest.raises(CheckpointError, match=r"is damaged: its SHA-256 does not fit"):
        load(newest)


def test_a_new_checkpoint_is_not_removed_for_a_damaged_one_of_more_updates(tmp_path: Path) -> None:
    # given: the run went on from update 1, because update 9 was damaged
    save_at(tmp_path, 1, keep=1)
    flip(save_at(tmp_path, 9, keep=2).with_suffix(".safetensors"))

    # when
    save_at(tmp_path, 2, keep=1)

    # then
    assert load(tmp_path).facts["updates"] == 2


# A disk that fails.


def fail(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", [(os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[Any, str]
) -> None:
    # given
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(*broken, fail)

    # when
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")

    # then
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_that_is_interrupted_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)

    # when
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")

    # then
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    # given
    path = tmp_path / "file"
    write_atomically(path, b"a longer old content")

    # when
    write_atomically(path, b"new")

    # then
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_the_file_is_whole_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    path, steps = tmp_path / "file", []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("directory" if path.exists() else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("name")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)

    # when
    write_atomically(path, b"new")

    # then
    assert steps == ["file", "name", "directory"]


@pytest.mark.parametrize("failing_write", [1, 2], ids=["tensors", "json"])
def test_a_save_that_fails_leaves_the_earlier_checkpoints_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    # given
    save_at(tmp_path, 1, keep=1)
    writes = []

    def write(path: Path, data: bytes) -> None:
        writes.append(path)
        if len(writes) == failing_write:
            fail()
        write_atomically(path, data)

    monkeypatch.setattr(checkpoint, "write_atomically", write)

    # when
    with pytest.raises(OSError, match="No space left"):
        save_at(tmp_path, 2, keep=1)

    # then
    assert load(tmp_path).facts["updates"] == 1


def test_what_lies_beyond_a_resumed_checkpoint_is_discarded(tmp_path: Path) -> None:
    # given checkpoints of 1, 5 and 9 updates, and one that a kill left half-written
    for updates in (1, 5, 9):
        save_at(tmp_path, updates)
    (tmp_path / ".checkpoint-000000000010.json.1.tmp").write_text("{")

    # when the run is resumed from 5
    discard_after(tmp_path, 5)

    # then the abandoned future is gone, and nothing else
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"checkpoint-{updates:012d}.{suffix}"
        for updates in (1, 5)
        for suffix in ("json", "safetensors")
    ]
