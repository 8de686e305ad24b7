"""Population-based training, shown: four CartPole runs whose learning rates are drawn at random.

    .venv/bin/python scripts/population.py [--output runs/population] [--data FILE]

The rates are log-uniform in [1e-5, 1e-1], by a fixed seed. First each run trains for itself, then
all of them as members of one population, both times at once on this machine: a server, and for each
run a learner and an actor. An arm that is in the folder already is not trained again. Prints a
table, and writes what it is made of to FILE. Exit code 1 unless all members of the population end
with a mean return of 475 or more, and not all of the others do.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.records.history import read_run
from impala_redis.common.records.rundir import RunDirectory

BIN = Path(sys.executable).parent
GOAL = 475.0
LEAST_RATE, MOST_RATE = 1e-5, 1e-1
ARMS = ("alone", "population")
LIMIT_S = 3600.0
# Constant: a rate that falls to 0 would hide one that is too high.
OPTIONS = ["--preset", "cartpole", "--stop-at-return", "none", "--num-actors", "1"]
OPTIONS += ["--learning-rate-schedule", "constant"]

Row = dict[str, Any]


def rates(number: int, seed: int) -> list[float]:
    """The learning rates of the members."""
    ends = np.log10([LEAST_RATE, MOST_RATE])
    drawn = 10 ** np.random.default_rng(seed).uniform(*ends, number)
    return [float(f"{rate:.3g}") for rate in drawn]


def command(arm: str, number: int, rate: float, known: argparse.Namespace) -> list[str]:
    """What trains one member, but for its folder and its server."""
    words = [*OPTIONS, "--run", f"member-{number}", "--seed", str(number)]
    words += ["--learning-rate", str(rate), "--total-frames", str(known.frames)]
    if arm == "population":
        words += ["--population", "cartpole", "--population-interval", str(known.interval)]
    return words


def train(folder: Path, commands: list[list[str]]) -> list[Row]:
    """Trains all members of an arm at once, unless the folder has just these, all ended.

    Returns the copies that the members made, the first one first. Raises RuntimeError: one failed.
    """
    asked, copies = folder / "asked.txt", folder / "copies.json"
    words = "\n".join(map(shlex.join, commands))
    if asked.exists() and asked.read_text() == words:
        found: list[Row] = json.loads(copies.read_text())
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with EmbeddedServer(folder) as server:
        running = []
        for number, options in enumerate(commands):
            where = ["--redis-url", server.url, "--run-dir", str(folder / f"member-{number}")]
            with (folder / f"member-{number}.log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        [str(BIN / "impala-train"), *options, *where], stdout=log, stderr=log
                    )
                )
        try:
            codes = [one.wait(LIMIT_S) for one in running]
        finally:
            for one in running:
                one.terminate()
        made = copies_in(server.url)
    if any(codes):
        raise RuntimeError(f"a member failed; its words are in {folder}")
    copies.write_text(json.dumps(made))
    asked.write_text(words)
    return made


def copies_in(url: str) -> list[Row]:
    """What the members of the population on a server have copied."""
    options = ["--population", "cartpole", "--redis-url", url, "--json"]
    done = subprocess.run(
        [str(BIN / "impala-status"), *options], capture_output=True, text=True, timeout=60
    )
    return list(reversed(json.loads(done.stdout)["copies"])) if done.returncode == 0 else []


def result(folder: Path, rate: float) -> Row:
    """What a member has reached, and with which rate it ended."""
    found = RunDirectory(folder).read_result() or {}
    records = read_run(folder).records
    generations = records.column("population:generation")
    return {
        "rate": rate,
        "rate_at_the_end": float(records.last("learning_rate")),
        "mean_return": found.get("mean_return_100"),
        "generation": int(generations[-1]) if np.isfinite(generations[-1:]).all() else 0,
        "frames": found.get("frames"),
    }


def shown(document: Row) -> str:
    """The table of both arms."""
    lines = ["| learning rate | alone | in a population | its last rate | copies behind it |"]
    lines += ["|---|---|---|---|---|"]
    for alone, together in zip(document["alone"], document["population"], strict=True):
        lines.append(
            f"| {alone['rate']:.2g} | {_return(alone)} | {_return(together)} | "
            f"{together['rate_at_the_end']:.2g} | {together['generation']} |"
        )
    return "\n".join(lines)


def _return(row: Row) -> str:
    return "-" if row["mean_return"] is None else f"{row['mean_return']:.0f}"


def reached(rows: list[Row]) -> int:
    """How many have reached the goal at their end."""
    return sum((row["mean_return"] or 0.0) >= GOAL for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/population"))
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--frames", type=int, default=1_500_000)
    parser.add_argument("--interval", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0, help="of the learning rates")
    parser.add_argument("--data", type=Path)
    known = parser.parse_args()
    document: Row = {
        "command": f"scripts/population.py --frames {known.frames} --interval {known.interval}",
        "date": time.strftime("%Y-%m-%d"),
    }
    members = rates(known.members, known.seed)
    for arm in ARMS:
        folder = known.output / arm
        started = time.monotonic()
        commands = [command(arm, number, rate, known) for number, rate in enumerate(members)]
        copies = train(folder, commands)
        document[arm] = [
            result(folder / f"member-{number}", rate) for number, rate in enumerate(members)
        ]
        document["copies"] = copies  # the last arm is the one that has some
        print(f"{arm}: {time.monotonic() - started:.0f} s", flush=True)
    print(shown(document))
    together, alone = reached(document["population"]), reached(document["alone"])
    print(f"{GOAL:.0f} or more: {together} of {len(members)} members, {alone} alone")
    if known.data:
        known.data.write_text(json.dumps(document) + "\n", encoding="utf-8")
    sys.exit(0 if together == len(members) > alone else 1)


if __name__ == "__main__":
    main()
