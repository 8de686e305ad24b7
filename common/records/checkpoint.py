"""Checkpoints: safetensors for the tensors, JSON for the facts, and nothing that can execute.

A checkpoint is two files, `checkpoint-<updates>.safetensors` and `.json`. The JSON is written last,
atomically, and holds the SHA-256 of the other file: a checkpoint exists exactly when its JSON does,
and the tensors that it names can be proven whole.
"""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from impala_redis.common.errors import CheckpointError, SpecMismatch, printable
from impala_redis.common.files import write_atomically
from impala_redis.common.records.rundir import RunDirectory, way_to_a_run
from impala_redis.common.run.saved_spec import maker

log = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{12})\.json")

Tensors = dict[str, NDArray[np.generic]]


class Checkpoint(NamedTuple):
    """A saved state: named tensors, and JSON-like facts."""

    tensors: Tensors
    facts: dict[str, Any]
    path: Path  # of the JSON

    @property
    def resumes(self) -> int:
        """How often the run had been resumed when this was saved."""
        found = self.facts.get("resumes")  # since 0.2
        return found if isinstance(found, int) and found >= 0 else 0


def save(directory: Path, updates: int, tensors: Tensors, facts: dict[str, Any], keep: int) -> Path:
    """Writes a checkpoint whole or not at all, and removes older ones beyond `keep` in all.

    Raises OSError, such as no space left; earlier checkpoints are intact then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"checkpoint-{updates:012d}"
    data = safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in tensors.items()})
    document = {
        "format": FORMAT,
        "tensors": stem.name + ".safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        **facts,
    }
    write_atomically(stem.with_suffix(".safetensors"), data)
    path = stem.with_suffix(".json")
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    there = _all(directory)
    for old in there[there.index(path) + keep :]:
        _remove(old)
    return path


def discard_after(directory: Path, updates: int) -> None:
    """Removes checkpoints beyond the one that is resumed, and files that a kill left unfinished."""
    for path in _all(directory):
        if int(path.stem.partition("-")[2]) > updates:
            _remove(path)
    for leftover in directory.glob(".checkpoint-*.tmp"):
        leftover.unlink(missing_ok=True)
    for tensors in directory.glob("checkpoint-*.safetensors"):
        if not tensors.with_suffix(".json").exists():
            tensors.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """The checkpoint in that JSON (or safetensors) file, or the newest whole one of a directory.

    A damaged one is passed over with a warning. Raises CheckpointError if none is usable, and
    SpecMismatch if a newer version made it.
    """
    if not path.exists():
        raise CheckpointError(f"there is no run directory or checkpoint at {path}")
    if not path.is_dir():
        if not _may_be_one(path):
            raise CheckpointError(f"{printable(path)} is no checkpoint; {way_to_a_run(path)}")
        return _load_one(path.with_suffix(".json"))
    candidates = _all(path) or _all(path / "checkpoints")
    if not candidates:
        holds_a_run = RunDirectory(path).holds_a_run
        way = "its learner has written none" if holds_a_run else way_to_a_run(path)
        raise CheckpointError(f"there is no checkpoint in {printable(path)}; {way}")
    for candidate in candidates:
        try:
            return _load_one(candidate)
        except CheckpointError as error:
            log.warning("PASSED OVER a damaged checkpoint: %s", error)
    raise CheckpointError(f"none of the {len(candidates)} checkpoints in {path} is usable")


def _may_be_one(path: Path) -> bool:
    """Whether a file is named as a checkpoint's are, or is a copy under another name."""
    document = path.with_suffix(".json")
    if path.suffix not in (".json", ".safetensors"):
        return False
    if _NAME.fullmatch(document.name):
        return True
    try:
        return "sha256" in json.loads(document.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)  # first: without its JSON there is no checkpoint
    path.with_suffix(".safetensors").unlink(missing_ok=True)


def _all(directory: Path) -> list[Path]:
    """The checkpoints of a directory, newest first."""
    found = [path for path in directory.glob("checkpoint-*.json") if _NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def _load_one(path: Path) -> Checkpoint:
    try:
        facts = json.loads(path.read_bytes())
        found = facts["format"]
        if type(found) is int and found > FORMAT:
            raise SpecMismatch(
                f"{path} was made by {maker(facts)} (format {found}, this one reads {FORMAT}); "
                "install that version"
            )
        if found != FORMAT:
            raise CheckpointError(f"{path} is of format {ascii(found)[:80]}, not {FORMAT}")
        data = (path.parent / Path(facts["tensors"]).name).read_bytes()
        digest = facts["sha256"]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{facts['tensors']} is damaged: its SHA-256 does not fit {path}")
    try:
        return Checkpoint(safetensors.numpy.load(data), facts, path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{facts['tensors']} is not safetensors: {error}") from error
