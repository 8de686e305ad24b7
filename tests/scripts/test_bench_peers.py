"""scripts/bench_peers.py: everyone in turn, who fails or hangs is named, and nothing is left."""

import importlib
import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from support import ROOT, Program, eventually, is_running

# The script with other contestants: drivers from the test's folder, and one that needs packages.
FAKED = """
import sys
from pathlib import Path

sys.path.insert(0, {scripts!r})
import bench_peers
from bench.peers import bounded
from bench.peers.contestants import Contestant

bench_peers.MARGIN_S, bounded.GRACE_S = 1.0, 0.1
for driver in Path({folder!r}).glob("*.py"):
    packages = ("nothing==0",) if driver.stem == "absent" else ()
    warm = driver.stem == "warm"
    bench_peers.CONTESTANTS[driver.stem] = Contestant(driver, packages, is_warm=warm)
bench_peers.main(["--folder", {folder!r}, *sys.argv[1:]])
"""
NOTE = "open({order!r}, 'a').write({name!r} + ' ')\n"
TELL = (
    'print(\'words of the peer\')\nprint(\'{{"settings": "fake", {figure}, "versions": {{}}}}\')\n'
)
# The first time, that is. It ignores the wish to end, and a worker has left its process group.
HANGS = """
import os, signal, subprocess, sys, time
if os.path.exists({pids!r}):
    print('{{"settings": "late", "fps": 100.0, "versions": {{}}}}')
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
worker = subprocess.Popen(sleep, start_new_session=True)
open({pids!r} + ".part", "w").write(f"{{os.getpid()}} {{worker.pid}}")
os.replace({pids!r} + ".part", {pids!r})
time.sleep(600)
"""

Bench = Callable[..., Program]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Starts the script with these drivers as contestants: name and source."""
    folder, order = tmp_path / "peers", str(tmp_path / "order")
    folder.mkdir()

    def start(drivers: dict[str, str], *options: str) -> Program:
        for name, source in drivers.items():
            (folder / f"{name}.py").write_text(NOTE.format(order=order, name=name) + source)
        code = FAKED.format(scripts=str(ROOT / "scripts"), folder=str(folder))
        command = [sys.executable, "-c", code, "--only", ",".join(drivers), *options]
        return Program(command, dict(os.environ), tmp_path, tmp_path / "log")

    return start


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script, or a part of a driver, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench" / "peers"))
    return importlib.import_module


def test_everyone_runs_once_in_a_round_and_who_fails_is_named(bench: Bench, tmp_path: Path) -> None:
    # given ours, a peer, one that compiles, one that fails, one that hangs and one that cannot be
    # installed
    pids = tmp_path / "pids"
    drivers = {
        "impala-redis": TELL.format(figure='"fps": 300.0'),
        "peer": TELL.format(figure='"fps": 200.0'),
        "warm": TELL.format(figure='"fps": 400.0'),
        "fails": "raise ValueError('no such [flag]')\n",
        "hangs": HANGS.format(pids=str(pids)),
        "absent": "",
    }
    (tmp_path / "peers" / "absent").touch()  # where its environment would be

    # when there are two rounds
    program = bench(drivers, "--rounds", "2", "--seconds", "1", "--warmup-s", "0")
    code = program.code()

    # then the figures are compared, and each failure is told without a traceback of ours
    assert code == 1, program.output
    document = json.loads(program.output.splitlines()[-1])
    contestants = document["contestants"]
    assert contestants["peer"]["median"] == 200.0
    assert contestants["peer"]["ours_is_faster_by"] == 1.5
    assert "1.50 x as fast" in program.output
    failed = {name: one["failed"] for name, one in contestants.items() if one["failed"]}
    assert [len(failed[name]) for name in ("fails", "hangs", "absent")] == [2, 1, 1]
    assert failed["fails"][0].startswith("ValueError: no such [flag]")
    assert failed["hangs"][0].startswith("not over within 2 s")
    assert contestants["hangs"]["median"] == 100.0
    assert failed["absent"][0].startswith("not installed: Error: ")
    assert "Traceback" not in program.output

    # and they took turns, after the run in which one compiles, which is no round
    turns = ["impala-redis", "peer", "warm", "fails", "hangs"]
    assert (tmp_path / "order").read_text().split() == ["warm", *turns, *reversed(turns)]
    assert len(contestants["warm"]["rounds"]) == 2

    # and of the one that hung nothing is left
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())


def test_ctrl_c_ends_the_running_peer_and_tells_what_was_measured(
    bench: Bench, tmp_path: Path
) -> None:
    # given one that solved it, and one at work
    pids = tmp_path / "pids"
    drivers = {
        "impala-redis": TELL.format(figure='"solve_s": 3.5'),
        "hangs": HANGS.format(pids=str(pids)),
    }
    program = bench(drivers, "--what", "solve")
    eventually(pids.exists, what="the peer to be at work")

    # when
    program.send(signal.SIGINT)

    # then
    assert program.code() == 130, program.output
    contestants = json.loads(program.output.splitlines()[-1])["contestants"]
    assert (contestants["impala-redis"]["median"], contestants["hangs"]["median"]) == (3.5, None)
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())


def test_a_median_of_rounds_counts_one_that_was_not_solved_as_the_longest(scripts: Any) -> None:
    # given a task that was solved in two of three rounds, and in one of three
    bench_peers = scripts("bench_peers")
    work = bench_peers.Work("solve", 1.0, 0.0, 60.0, "", Path())

    def median(*values: float | None) -> float | None:
        rounds = [{"settings": "", "versions": {}, "solve_s": value} for value in values]
        return bench_peers.summary(rounds, work)["median"]

    # then
    assert median(None, 4.0, 9.0) == 9.0
    assert median(None, 4.0, None) is None
    assert bench_peers.number(None, work) == "not in 60 s"


def test_the_meter_counts_frames_after_the_warm_up_and_seconds_from_the_start(
    scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a clock, on which the process began at 100 s
    meter, clock = scripts("meter"), [110.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock[0])
    limits = {"seconds": 4.0, "warmup_s": 2.0, "limit_s": 60.0, "started_s": 100.0}
    steady = meter.Meter(Namespace(what="fps", **limits))
    solving = meter.Meter(Namespace(what="solve", **limits))

    # when an update a second uses 1,000 frames, the first ones more
    enough = []
    for frames in (50_000, 90_000, 91_000, 92_000, 93_000, 94_000, 95_000):
        enough.append(steady.update(frames))
        clock[0] += 1.0

    # then the rate is without the warm-up
    assert enough == [False] * 6 + [True]
    assert steady.figures() == {"fps": 1000.0, "measured_s": 4.0, "frames": 95_000}

    # and it is solved by a hundred episodes, none fewer
    for _ in range(99):
        solving.episode(500.0)
    assert not solving.update(1)
    solving.episode(0.0)
    assert solving.update(2)
    assert solving.figures() == {"solve_s": 17.0, "frames": 2, "best_return": 495.0}


def test_the_cartpole_of_the_compiled_loop_is_gymnasiums(scripts: Any) -> None:
    # given the same episodes in both, of actions that keep some poles up for longer than others
    cartpole, draw = scripts("cartpole"), np.random.default_rng(0)
    environment = CartPoleVectorEnv(num_envs=64)
    environment.reset(seed=0)
    states = environment.state.copy()  # [4, N]
    assert np.abs(states).max() <= cartpole.FIRST
    fell = np.zeros(64, bool)
    ends = 0

    # when both take the same steps
    for _ in range(300):
        leaning = (states[2] + states[3] > 0).astype(np.int64)
        actions = np.where(draw.random(64) < 0.7, leaning, draw.integers(0, 2, 64))
        _, rewards, terminated, truncated, _ = environment.step(actions)
        # gymnasium takes a step more after an episode's end, which begins the next one
        states = np.where(fell, environment.state, cartpole.moved(np, states, actions))

        # then they come to the same place, and to the same end, by itself
        assert states == pytest.approx(environment.state, rel=1e-9, abs=1e-12)
        fell = cartpole.fallen(np, states)
        assert fell.tolist() == terminated.tolist() and not truncated.any()
        assert set(rewards) <= {0.0, 1.0}
        ends += int(fell.sum())
    assert ends > 40

    # and both cut an episode off after as many steps
    assert environment.max_episode_steps == cartpole.MOST_STEPS
