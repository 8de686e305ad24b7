"""Measures what docs/performance.md says, and keeps what the benchmarks print in docs/data/.

    .venv/bin/python scripts/measure.py             # names, with the command of each
    .venv/bin/python scripts/measure.py learning    # measures one, or several, or `all`
    .venv/bin/python scripts/write_docs.py          # writes the page's tables

Nothing else should run meanwhile. Of each benchmark its last line is kept, which is JSON, with the
command and the date.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from bench import pages

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data"
# By the name of a file in docs/data: a script and its options.
COMMANDS = {
    "training": "bench_training.py --json",
    "solve": "bench_solve.py",
    "learning": "bench_learning.py --threads 1 --json",
    "acting": "bench_acting.py --no-torch --json",
    "feeding": "bench_feeding.py --cases atari:16,atari:64,atari:512,atari-fast,masked-cartpole,"
    "cartpole-throughput --json",
    "actors": "bench_training.py --actors 1,2,4,8 --no-limits --json",
    "pixels": "bench_training.py --preset atari-fast --seconds 15 --json -- --num-actors 2 "
    "--envs-per-actor 8 --batch-size 16 --replay-share 0 --queue-blocks 4 --publish-interval-s 0",
    "transport": "bench_transport.py --only moved --seconds 2 --repeat 3",
    # One learner in torch, too, which a group needs.
    "group": "bench_group.py --preset cartpole --ranks 1,2 --seconds 6 --warm-up-s 3 --json -- "
    "--engine torch --stop-at-return none --total-frames 100000000",
    "peers-fps": "bench_peers.py --what fps",
    # Without RLlib, each run of which may take the limit of three minutes.
    "peers-solve": "bench_peers.py --what solve --only impala-redis,pufferlib,sample-factory,"
    "stable-baselines3,jax-loop,jax-loop-compiled",
}
# By the name of a part of the page: what writes it, and from which files.
TABLES = {
    "throughput": (pages.throughput_table, ("training",)),
    "solve": (pages.solve_table, ("solve",)),
    "peers": (pages.peers_table, ("peers-fps", "peers-solve")),
    "learning": (pages.learning_table, ("learning",)),
    "stages": (pages.stages_table, ("training",)),
    "acting": (pages.acting_table, ("acting",)),
    "feeding": (pages.feeding_table, ("feeding",)),
    "pixels": (pages.pixels_table, ("pixels",)),
    "actors": (pages.actors_table, ("actors",)),
    "transport": (pages.transport_table, ("transport",)),
    "group": (pages.group_table, ("group",)),
}


def path_of(name: str) -> Path:
    """The file of what was measured under this name."""
    return DATA / f"{name}.jsonl"


def table_of(part: str) -> str | None:
    """The part's table; None where something of it has not been measured."""
    write, names = TABLES[part]
    if not all(path_of(name).exists() for name in names):
        return None
    return write(*(json.loads(path_of(name).read_text(encoding="utf-8")) for name in names))


def measure(name: str) -> None:
    """Runs a benchmark and keeps its last line. Raises ValueError if that is no JSON.

    An exit code above 0 is no failure then: bench_peers tells by it that somebody was not measured.
    """
    words = shlex.split(COMMANDS[name])
    command = [sys.executable, str(ROOT / "scripts" / words[0]), *words[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    about = {"command": f"scripts/{COMMANDS[name]}", "date": time.strftime("%Y-%m-%d")}
    document = about | json.loads(done.stdout.strip().rpartition("\n")[2])
    DATA.mkdir(exist_ok=True)
    path_of(name).write_text(json.dumps(document) + "\n", encoding="utf-8")


def main() -> None:
    asked = list(COMMANDS) if sys.argv[1:] == ["all"] else sys.argv[1:]
    if not asked or not set(asked) <= set(COMMANDS):
        sys.exit("\n".join(f"{name}: scripts/{command}" for name, command in COMMANDS.items()))
    for name in asked:
        measure(name)
        print(f"written: {path_of(name).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
