"""Checkpoints: safetensors for the tensors, JSON for the facts, and nothing that can execute.

A checkpoint is two files, `checkpoint-<updates>.safetensors` and `.json`. The JSON is written last,
atomically, and holds the SHA-256 of the other file: a checkpoint exists exactly when its JSON does,
and the tensors that it names can be proven whole.
"""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from impala_redis.common.errors import CheckpointError, ConfigError, SpecMismatch, printable
from impala_redis.common.files import (
    make_folder,
    read_whole,
    refuse_link,
    remove_leftovers,
    write_atomically,
)
from impala_redis.common.records.rundir import RunDirectory, way_to_a_run
from impala_redis.common.run.saved_spec import maker, read_saved_spec

log = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{12})\.json")

# The facts take some KB, and the spec among them at most 64 KiB.
MOST_FACTS_BYTES = 4_194_304
# The tensors take at most as many bytes as the network's parameters this many times (weights,
# their mean, and two slots of an optimizer), beside a header and the state of a generator. A
# spec with more parameters than a message of Redis has room for is refused before.
COPIES, MOST_BYTES_BESIDE = 4, 16_777_216
# Facts that count something, and the most of each: the next ones must fit, too.
_COUNTS = {
    "updates": 10**11,
    **dict.fromkeys(("version", "frames", "episodes", "optimizer_steps", "resumes"), 2**52),
}

Tensors = dict[str, NDArray[np.generic]]


class Checkpoint(NamedTuple):
    """A saved state: named tensors, and JSON-like facts."""

    tensors: Tensors
    facts: dict[str, Any]
    path: Path  # of the JSON

    @property
    def resumes(self) -> int:
        """How often the run had been resumed when this was saved."""
        return int(self.facts.get("resumes", 0))  # since 0.2

    @property
    def has_averaged(self) -> bool:
        """Whether it has the parameters' mean over the last updates, too: since 0.2."""
        return any(name.startswith("averaged.") for name in self.tensors)

    @contextlib.contextmanager
    def being_read(self) -> Iterator[None]:
        """Raises CheckpointError where a fact or a tensor is missing, or is no such."""
        try:
            yield
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} lacks or garbles {error}") from error

    def fitting(
        self, kind: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float32]]:
        """The tensors of one kind by their own names. Raises CheckpointError: one does not fit."""
        found: dict[str, NDArray[np.float32]] = {}
        for name, shape in shapes.items():
            saved = self.tensors.get(f"{kind}.{name}")
            if saved is None or saved.shape != shape or saved.dtype != np.float32:
                raise CheckpointError(
                    f"{self.path} does not fit this network and optimizer: {kind}.{name} is "
                    f"{'missing' if saved is None else f'{saved.dtype}{list(saved.shape)}'}"
                )
            if np.isnan(saved).any():  # the next update would make the weights so
                raise CheckpointError(f"{self.path} is damaged: {kind}.{name} is not a number")
            found[name] = np.asarray(saved, np.float32)
        return found


def save(directory: Path, updates: int, tensors: Tensors, facts: dict[str, Any], keep: int) -> Path:
    """Writes a checkpoint whole or not at all, and removes older ones beyond `keep` in all.

    Raises OSError, such as no space left; earlier checkpoints are intact then.
    """
    make_folder(directory)
    stem = directory / f"checkpoint-{updates:012d}"
    data = _as_bytes(tensors)
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


def packed(tensors: Tensors, facts: dict[str, Any]) -> bytes:
    """A state as bytes, for a learner that takes it over from another; `unpacked` reads it."""
    head = json.dumps(facts).encode()
    return len(head).to_bytes(8, "little") + head + _as_bytes(tensors)


def unpacked(data: bytes, path: Path) -> Checkpoint:
    """What `packed` gave; `path` names it in errors. Raises CheckpointError: it is none."""
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        facts, tensors = json.loads(data[8:end]), safetensors.numpy.load(data[end:])
        _check_counts(facts, str(path))
    except (
        *(safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError),
        RecursionError,
    ) as error:
        raise CheckpointError(f"{path} is no state of a learner: {str(error)[:200]}") from error
    return Checkpoint(tensors, facts, path)


def _as_bytes(tensors: Tensors) -> bytes:
    return safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in tensors.items()})


def discard_after(directory: Path, updates: int) -> None:
    """Removes checkpoints beyond the one that is resumed, and files that a kill left unfinished.

    Raises OSError, also when the directory is a symbolic link.
    """
    refuse_link(directory)
    for path in _all(directory):
        if int(path.stem.partition("-")[2]) > updates:
            _remove(path)
    remove_leftovers(directory, "checkpoint-*")
    for tensors in directory.glob("checkpoint-*.safetensors"):
        if not tensors.with_suffix(".json").exists():
            tensors.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """The checkpoint in that JSON (or safetensors) file, or the newest whole one of a directory.

    A damaged one is passed over with a warning. What `path` names may be a symbolic link, what is
    found in a directory may not. Raises CheckpointError if none is usable, and SpecMismatch if a
    newer version made it.
    """
    if not path.exists():
        raise CheckpointError(f"there is no run directory or checkpoint at {path}")
    if not path.is_dir():
        if not _may_be_one(path):
            raise CheckpointError(f"{printable(path)} is no checkpoint; {way_to_a_run(path)}")
        return _load_one(path.with_suffix(".json"), is_named=True)
    candidates = _all(path) or _all(_folder_in(path))
    if not candidates:
        holds_a_run = RunDirectory(path).holds_a_run
        way = "its learner has written none" if holds_a_run else way_to_a_run(path)
        raise CheckpointError(f"there is no checkpoint in {printable(path)}; {way}")
    for candidate in candidates:
        try:
            return _load_one(candidate, is_named=False)
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
        return "sha256" in json.loads(read_whole(document, MOST_FACTS_BYTES, follow=True))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _folder_in(run_dir: Path) -> Path:
    folder = run_dir / "checkpoints"
    try:
        refuse_link(folder)
    except OSError as error:
        raise CheckpointError(
            f"{printable(run_dir)}: {error.strerror}; name that folder itself if you trust it"
        ) from error
    return folder


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)  # first: without its JSON there is no checkpoint
    path.with_suffix(".safetensors").unlink(missing_ok=True)


def _all(directory: Path) -> list[Path]:
    """The checkpoints of a directory, newest first."""
    found = [path for path in directory.glob("checkpoint-*.json") if _NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def _load_one(path: Path, is_named: bool) -> Checkpoint:
    """Reads a checkpoint; where the user has named it, its two files may be symbolic links."""
    name = printable(path)
    try:
        facts = json.loads(read_whole(path, MOST_FACTS_BYTES, follow=is_named))
        found = facts["format"]
        if type(found) is int and found > FORMAT:
            raise SpecMismatch(
                f"{name} was made by {maker(facts)} (format {ascii(found)[:80]}, this one reads "
                f"{FORMAT}); install that version"
            )
        if found != FORMAT:
            raise CheckpointError(f"{name} is of format {ascii(found)[:80]}, not {FORMAT}")
        _check_counts(facts, name)
        beside = path.parent / Path(facts["tensors"]).name
        data = read_whole(beside, _most_bytes(facts, path), follow=is_named)
        digest = facts["sha256"]
    except OSError as error:
        raise CheckpointError(
            f"{printable(error.filename)} cannot be read: {error.strerror}"
        ) from error
    except MemoryError as error:
        raise CheckpointError(f"there is no memory for the tensors of {name}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{name} is not a checkpoint: {str(error)[:200]}") from error
    tensors_name = printable(beside.name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{tensors_name} is damaged: its SHA-256 does not fit {name}")
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{tensors_name} is not safetensors: {str(error)[:200]}") from error
    _check_weights(tensors, tensors_name)
    return Checkpoint(tensors, facts, path)


def _check_counts(facts: dict[str, Any], name: str) -> None:
    """Raises CheckpointError: a fact that counts something is no such number."""
    for key, most in _COUNTS.items():
        found = facts.get(key, 0)  # some came later than the first version
        if type(found) is not int or not 0 <= found <= most:
            raise CheckpointError(
                f"{name} is damaged: its {key} is {_shortened(found)}, not 0 to {most}"
            )


def _shortened(value: Any) -> str:
    """A value from JSON in a few characters; numbers may have thousands of digits."""
    try:
        return ascii(value)[:40]
    except (ValueError, RecursionError):
        return "too long"


def _most_bytes(facts: dict[str, Any], path: Path) -> int:
    """How long the tensors' file may be: a longer one is not of this run's network."""
    try:
        shapes = read_saved_spec(facts, path).weight_shapes()
    except (SpecMismatch, ConfigError):  # whoever needs the spec refuses it
        return MOST_BYTES_BESIDE
    return COPIES * 4 * sum(map(prod, shapes.values())) + MOST_BYTES_BESIDE


def _check_weights(tensors: Tensors, name: str) -> None:
    """Raises CheckpointError: weights are not finite, which neither actors nor a learner take."""
    for key, tensor in tensors.items():
        if not key.startswith(("model.", "averaged.")):
            continue
        if tensor.dtype != np.float32:
            raise CheckpointError(f"{name} is damaged: {printable(key)} is {tensor.dtype}")
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{name} is damaged: {printable(key)} is not finite")
