"""A seeded fuzzer of run directories: what a report, an evaluation and a resumed learner read.

One file of a good run is changed at a time, now and then two: its bytes, a value in its JSON or
TOML, the header or the numbers of its tensors, under a digest that fits again; or it becomes a
pipe, a device, a link, a folder or a sparse file.
`PYTHONPATH=.. python fuzz_runs.py SEED COUNT` prints a report as JSON, as `fuzz.py` does.
"""

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chaos.fuzz import MOST_FAILURES, RAW, TOKENS, peak_mb, resident_mb
from impala_redis.common.errors import ImpalaError
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.records import checkpoint, history
from impala_redis.common.records.recorder import Recorder
from impala_redis.common.records.rundir import written_to
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import read_saved_spec
from impala_redis.workers.plan import make_plan
from impala_redis.workers.reporting import pages
from impala_redis.workers.reporting.curves import curve_of
from impala_redis.workers.reporting.template import filled

RUNS = Path(__file__).parents[1] / "records"
NAMES = ("run_of_0_1", "run_of_wire_2")
MINE = b"what is mine\n"
HANGS_S = 30
PAGE_OF_EACH = 10  # filling the template takes longer than all the rest

NUMBERS = [0, 1, -1, -5, 98, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**25, 10**400, -(10**400)]
FLOATS = [0.5, -0.0, 1e-320, 1e30, 1e99, 1e308, -1e308, float("inf"), -float("inf"), float("nan")]
TEXTS = [
    "",
    "abc",
    "x" * 5000,
    "\ud800",
    "\0",
    "..",
    "/",
    "a\nb",
    "\x1b[2J",
    "none",
    "{}",
    "9" * 5000,
]
STRANGE = [None, True, False, [], [[]], {}, {"a": []}, [None] * 500, *NUMBERS, *FLOATS, *TEXTS]
TOML = [
    *("true", '"x"', "1", "-1", "1e400", "nan", "inf", "[]", "[[[1]]]", "{a = 1}", "1979-05-27"),
    *("9" * 5000, "'''\n'''", '"\\u0000"', "[" * 2000, '"abc\\nerror: x"', "[1, 2.5]", "0x", ""),
]


class Hangs(BaseException):
    """A reader does not come back."""


def _hangs(*_: object) -> None:
    raise Hangs


class Fuzzer:
    """Changes run directories, in the same way for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._good = {name: _files(RUNS / name) for name in NAMES}

    def make(self, folder: Path, outside: Path) -> str:
        """Makes the next run directory there, which may lead `outside`; returns what is odd."""
        draw = self._random
        good = self._good[draw.choice(NAMES)]
        for name, data in good.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        odd = []
        for _ in range(draw.choice((1, 1, 1, 2))):
            name = draw.choice(list(good))
            change = draw.choices(
                (self._damage, self._change_value, self._change_tensors, self._replace),
                (3, 5, 3, 2),
            )[0]
            odd.append(f"{change.__name__} {name}")
            change(folder, name, outside)
        return ", ".join(odd)

    def _damage(self, folder: Path, name: str, outside: Path) -> None:
        """Changes bytes, with nothing put right."""
        path = folder / name
        if path.is_file() and not path.is_symlink():
            path.write_bytes(self._mutated(path.read_bytes()))

    def _change_value(self, folder: Path, name: str, outside: Path) -> None:
        """Changes a value, so that the rest can be read."""
        path, draw = folder / name, self._random
        if path.is_symlink() or not path.is_file():
            return
        if name.endswith(".toml"):
            lines = path.read_text(errors="replace").splitlines()
            at = draw.randrange(len(lines) or 1)
            key = lines[at].partition(" = ")[0] if lines else "x"
            lines[at : at + 1] = [
                draw.choice((f"{key} = ", "", f"x = {key} = ")) + draw.choice(TOML)
            ]
            path.write_text("\n".join(lines), errors="replace")
        elif name.endswith(".jsonl"):
            lines = path.read_text(errors="replace").splitlines()
            at = draw.randrange(len(lines) or 1)
            lines[at : at + 1] = [self._json_like(lines[at] if lines else "{}")]
            path.write_text("\n".join(lines), errors="replace")
        elif name.endswith(".json"):
            path.write_text(self._json_like(path.read_text(errors="replace")), errors="replace")

    def _json_like(self, text: str) -> str:
        """The document with another value in one place."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return text
        holder, key = self._place_in(document)
        if key is None:
            return json.dumps(self._random.choice(STRANGE))
        if key == "spec" and self._random.random() < 0.8:
            holder[key] = self._json_like(holder[key])
        elif self._random.random() < 0.15:
            del holder[key]
        else:
            holder[key] = self._random.choice(STRANGE)
        return json.dumps(document)

    def _place_in(self, document: Any) -> tuple[Any, Any]:
        holder, key, here = document, None, document
        while (
            isinstance(here, dict | list) and here and (key is None or self._random.random() < 0.8)
        ):
            holder = here
            key = self._random.choice(list(here) if isinstance(here, dict) else range(len(here)))
            here = here[key]
        return holder, key

    def _change_tensors(self, folder: Path, name: str, outside: Path) -> None:
        """Changes header or numbers of the tensors, whose lengths and digest fit again."""
        draw = self._random
        facts_path = next(folder.glob("checkpoints/*.json"), None)
        path = next(folder.glob("checkpoints/*.safetensors"), None)
        if path is None or facts_path is None or path.is_symlink() or not path.is_file():
            return
        data = path.read_bytes()
        if len(data) < 8 or (length := struct.unpack_from("<Q", data)[0]) > len(data):
            return
        header, body = data[8 : 8 + length], bytearray(data[8 + length :])
        match draw.randrange(4):
            case 0:
                header = self._json_like(header.decode(errors="replace")).encode(errors="replace")
            case 1:
                header = self._mutated(header)
            case 2 if body:
                raw = draw.choice(RAW)
                at = draw.randrange(len(body)) // 4 * 4
                body[at : at + len(raw)] = raw
            case _:
                body = bytearray(self._mutated(bytes(body)))
        data = struct.pack("<Q", len(header)) + header + bytes(body)
        path.write_bytes(data)
        if facts_path.is_symlink() or not facts_path.is_file():
            return
        try:
            facts = json.loads(facts_path.read_text()) | {
                "sha256": hashlib.sha256(data).hexdigest()
            }
        except (ValueError, TypeError, RecursionError):
            return
        facts_path.write_text(json.dumps(facts))

    def _replace(self, folder: Path, name: str, outside: Path) -> None:
        """Puts something else where a file or a folder was."""
        draw = self._random
        path = folder / draw.choice((name, name, name, "checkpoints"))
        if path.parent.is_symlink() or not path.parent.is_dir():
            return
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            return
        match draw.randrange(10):
            case 0:
                os.mkfifo(path)
            case 1:
                path.mkdir()
            case 2:
                path.symlink_to(draw.choice(("/dev/zero", "/dev/full", "/dev/stdin", "/dev/tty")))
            case 3:
                path.symlink_to(outside / draw.choice(("file", "folder")))
            case 4:
                path.symlink_to(draw.choice((path, folder / "nothing", folder / "config.toml")))
            case 5:
                with path.open("wb") as file:  # of zeros, or so it says
                    file.truncate(draw.choice((3 * 10**6, 10**7) if "jsonl" in name else (10**11,)))
            case 6:
                path.write_bytes(b"")
            case 7:
                path.write_bytes(draw.choice((b"[", b'{"a":', b'"')) * 100_000)
            case 8:
                path.write_bytes(draw.randbytes(draw.randrange(1000)))
            case _:
                pass

    def _mutated(self, data: bytes) -> bytes:
        """Bytes flipped, cut off, cut out, put in or doubled."""
        draw, changed = self._random, bytearray(data)
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(changed) + 1)
            end = start + draw.choice((1, 2, 4, 30, 1000))
            match draw.randrange(6):
                case 0 if start < len(changed):
                    changed[start] ^= 1 << draw.randrange(8)
                case 1:
                    del changed[start:]
                case 2:
                    del changed[start:end]
                case 3:
                    changed[start:start] = draw.choice(TOKENS)
                case 4:
                    changed[start:start] = changed[start:end]
                case _:
                    changed[start:end] = draw.randbytes(min(end - start, 8))
        return bytes(changed)


def _files(run: Path) -> dict[str, bytes]:
    paths = sorted(path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


# The readers: each does what a program does with a run directory, and raises what it would.


def reports(folder: Path, number: int) -> None:
    """What impala-report reads and computes."""
    run = history.read_run(folder)
    groups = history.grouped([run])
    page = pages.page(groups, [])
    for name in history.names([run])[:5]:
        curve_of([run], name)
    if number % PAGE_OF_EACH == 0:
        text = filled(groups, []).replace("\N{NO-BREAK SPACE}", " ")  # ours, before a per cent
        assert all(character.isprintable() for line in text.split("\n") for character in line)
    assert page["title"]


def evaluates(folder: Path, number: int) -> None:
    """What impala-eval reads."""
    spec, (version, weights, _) = from_checkpoint(folder)
    assert type(version) is int and 0 <= version <= 2**53
    assert {name: array.shape for name, array in weights.items()} == spec.weight_shapes()
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in weights.values())


def resumes(folder: Path, number: int) -> None:
    """What impala-train and impala-learner read of it to go on, and what they then write."""
    nothing: dict[str, Any] = {}
    chosen: dict[str, Any] = dict.fromkeys(("run", "preset_name", "config_file"))
    plan = make_plan(
        **chosen, run_dir=folder, resume=True, overrides=nothing, default_preset="catch"
    )
    saved = checkpoint.load(folder)
    spec = read_saved_spec(saved.facts, saved.path)
    config = plan.config if spec.num_parameters < 10**6 else Config()
    learner = Learner(config, TorchEngine(spec, config))
    learner.restore(saved)
    assert all(0 <= n <= 2**53 for n in (learner.version, learner.updates, learner.frames))
    learner.weights()
    with written_to(folder):
        plan.directory.write_config(plan.run, plan.preset, plan.config)
        checkpoint.discard_after(plan.directory.checkpoints, learner.updates)
        recorder = Recorder(folder, learner.updates)
        recorder.record({"frames": learner.frames, "updates": learner.updates, "unix_s": 1.0})
        recorder.close()
        checkpoint.save(plan.directory.checkpoints, learner.updates + 1, *learner.state(), keep=2)
    history.read_run(folder)
    checkpoint.load(folder)


READERS: tuple[Callable[[Path, int], None], ...] = (reports, evaluates, resumes)


def read(folder: Path, number: int) -> list[str]:
    """How each reader ends: "taken", or the name of the error that the user gets."""
    ends = []
    for reader in READERS:
        try:
            reader(folder, number)
        except ImpalaError as error:
            assert len(str(error)) < 1000, str(error)[:2000]
            ends.append(f"{reader.__name__} {type(error).__name__}")
        else:
            ends.append(f"{reader.__name__} taken")
    return ends


def run(seed: int, count: int) -> dict[str, Any]:
    """Reads `count` run directories and reports."""
    logging.disable()
    signal.signal(signal.SIGALRM, _hangs)
    fuzzer, outcomes = Fuzzer(seed), Counter[str]()
    failures: list[dict[str, Any]] = []
    slowest_s, before_mb = 0.0, 0.0
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where syncing costs nothing
    with tempfile.TemporaryDirectory(dir=memory) as place:
        outside = Path(place) / "outside"
        (outside / "folder").mkdir(parents=True)
        (outside / "file").write_bytes(MINE)
        for number in range(-2, count):  # the first ones import what is needed
            if number == 0:
                before_mb = resident_mb()
            folder = Path(place) / "run"
            if number < 0:
                shutil.copytree(RUNS / NAMES[number], folder)
                odd = "nothing"
            else:
                odd = fuzzer.make(folder, outside)
            started = time.thread_time()
            signal.alarm(HANGS_S)
            try:
                ends = read(folder, number)
                assert number >= 0 or {end.split()[1] for end in ends} == {"taken"}, ends
                assert _files(outside) == {"file": MINE}, "something outside was written"
                assert list((outside / "folder").iterdir()) == []
            except (Exception, Hangs) as error:
                failures.append({"number": number, "odd": odd, "error": repr(error)[:500]})
                if len(failures) >= MOST_FAILURES:
                    break
            else:
                outcomes.update(ends if number >= 0 else [])
            signal.alarm(0)
            if number >= 0:
                slowest_s = max(slowest_s, time.thread_time() - started)
            shutil.rmtree(folder)
    return {
        "seed": seed,
        "count": count,
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
        "slowest_s": slowest_s,
        "growth_mb": peak_mb() - before_mb,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))) + "\n")
