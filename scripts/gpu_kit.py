"""Measures everything that a GPU is for, in parts, each a program with a limit of its own.

    scripts/gpu_kit.sh [--out DIR] [--parts tests,a,c,d,e,b] [--minutes 9]

    tests  the project's tests that need a GPU
    a      Learner.update from memory: networks, precisions, sizes, with and without a CUDA graph
    c      frames/s of the preset cartpole-throughput, without the GPU and with it
    d      the deep network acting on 512 games on the GPU, alone and beside a learner
    e      several learners that make each update together, and one alone; two share a GPU
    b      Pong (preset atari-fast) to a mean return of 18, for as long as is left

Start it by the shell's script, which finds the packages. A part that fails, or takes too long, is
noted, and keeps what it had measured. Where torch sees no GPU, a short form of each part is done on
the CPU. The folder has kit.json and kit.md (tables), rows.jsonl (as they came) and kit.log.
"""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.gpu import running
from bench.gpu.plan import ROOT

NETWORKS = ("mlp", "shallow", "nature", "deep", "lstm", "deep-lstm")
BEGAN = time.monotonic()
MACHINE_S = 60.0  # the first import of torch may take long


class Part(NamedTuple):
    """A part: its module, and its time in seconds."""

    module: str
    gpu_s: float
    most_s: float  # at most, on a GPU, where the parts before have left time
    cpu_s: float
    most_cpu_s: float


# In their order: the last takes what the others leave.
PARTS = {
    "tests": Part("gpu_tests", 40, 60, 30, 60),
    "a": Part("updates", 140, 200, 40, 80),
    "c": Part("throughput", 70, 80, 40, 80),
    "d": Part("acting", 125, 160, 50, 80),
    "e": Part("group", 45, 90, 20, 60),
    "b": Part("pong", 175, 300, 30, 60),
}


class Kit:
    """Does parts one after the other, and writes after each what is known by then."""

    def __init__(
        self, out: Path, machine: dict[str, Any], minutes: float, networks: tuple[str, ...]
    ) -> None:
        self._ends_at = BEGAN + 60 * minutes
        self._out, self._networks = out, networks
        self._device = "cpu" if machine["card"] == "cpu" else "cuda"
        self._document: dict[str, Any] = {"device": self._device, "machine": machine, "parts": {}}
        out.mkdir(parents=True, exist_ok=True)
        for name in (running.ROWS, running.LOG):
            (out / name).unlink(missing_ok=True)

    def run(self, names: list[str]) -> bool:
        """Does the parts and prints their tables; whether none has failed."""
        page, failed = "", list[str]()
        for number, name in enumerate(names):
            limit_s = self._limit_s(names[number:])
            say(f"part {name} begins, for {limit_s:.0f} s at most")
            module = PARTS[name].module
            done = running.done_by(module, name, self._device, limit_s, self._out, self._networks)
            self._document["parts"][name] = done
            say(f"part {name}: {len(done['rows'])} rows in {done['seconds']:.0f} s")
            if done["failed"]:
                failed.append(name)
                say(f"part {name} failed: {done['failed']}")
            page = self._write()
        say(f"written to {self._out}")
        print(page)
        if failed:
            print(f"error: failed: {', '.join(failed)}; {self._out / running.LOG} has their words")
        return not failed

    def _limit_s(self, names: list[str]) -> float:
        """The time of the first of these parts, if all are to have the same share of theirs."""
        parts, on_gpu = [PARTS[name] for name in names], self._device == "cuda"
        planned = [part.gpu_s if on_gpu else part.cpu_s for part in parts]
        share_s = (self._ends_at - time.monotonic()) * planned[0] / sum(planned)
        return min(share_s, parts[0].most_s if on_gpu else parts[0].most_cpu_s)

    def _write(self) -> str:
        """Writes both files; returns the page."""
        (self._out / "kit.json").write_text(json.dumps(self._document) + "\n", encoding="utf-8")
        try:
            from bench.gpu import tables

            page = tables.page(self._document)
        except Exception as error:  # the parts that follow matter more
            page = f"no tables could be made of kit.json: {error!r}"
        (self._out / "kit.md").write_text(page, encoding="utf-8")
        return page


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def machine() -> dict[str, Any]:
    """What the kit runs on; ends the program with a sentence where torch cannot be imported."""
    with tempfile.TemporaryDirectory() as folder:
        done = running.done_by("machine", "machine", "cpu", MACHINE_S, Path(folder))
    if not done["rows"]:
        sys.exit(f"error: this Python cannot say what it runs on: {done['failed']}")
    found: dict[str, Any] = done["rows"][0]
    return found


def usual_folder(card: str) -> Path:
    """Where the results go if nothing else is said."""
    name = re.sub(r"[^a-z0-9]+", "-", card.lower())
    return ROOT / ("build" if card == "cpu" else "docs/data") / f"gpu-kit-{name}"


def named(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the known names that are listed with commas, in the order known."""
    asked = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(asked) - set(known)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return tuple(name for name in known if name in asked)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu_kit.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the results")
    for option, known, words in (
        ("parts", tuple(PARTS), ""),
        ("networks", NETWORKS, "of parts a and e, "),
    ):
        parser.add_argument(
            f"--{option}",
            type=lambda text, known=known: named(text, known),
            default=known,
            help=f"{words}with commas: {','.join(known)}",
        )
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = machine()
    say(", ".join(f"{name} {found[name]}" for name in ("card", "torch", "cores")))
    out = (options.out or usual_folder(found["card"])).absolute()
    if not Kit(out, found, options.minutes, options.networks).run(list(options.parts)):
        sys.exit(1)


if __name__ == "__main__":
    main()
