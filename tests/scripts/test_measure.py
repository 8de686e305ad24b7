"""scripts/measure.py: what the benchmarks print is kept, and becomes the tables of the page."""

import importlib
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from support import ROOT

SIZES = ("64 KiB", "512 KiB", "1 MiB")


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, with data of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("measure")
    monkeypatch.setattr(module, "DATA", tmp_path)
    return module


def figure(median: float) -> dict[str, float]:
    return {"median": median, "low": median / 2, "high": median * 2}


def contestant(median: float | None, factor: float | None, **versions: str) -> dict[str, Any]:
    ends = {"low": median, "high": median}
    return {"median": median, **ends, "ours_is_faster_by": factor, "versions": versions}


def test_every_table_is_made_of_files_that_a_command_writes(measure: Any) -> None:
    named = {name for _, names in measure.TABLES.values() for name in names}
    assert named == set(measure.COMMANDS)
    for command in measure.COMMANDS.values():
        assert (ROOT / "scripts" / command.partition(" ")[0]).exists()


def test_a_table_of_which_something_is_missing_is_left_as_it_is(measure: Any) -> None:
    measure.path_of("peers-fps").write_text("{}\n")
    assert measure.table_of("peers") is None


def test_the_last_line_of_a_benchmark_is_kept_with_its_command(
    measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a benchmark that prints a table, then its figures
    asked = list[list[str]]()

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        asked.append(command)
        return CompletedProcess(command, 1, 'a table\n{"figures": 1}\n')

    monkeypatch.setattr(measure.subprocess, "run", run)

    # when
    measure.measure("actors")

    # then
    kept = json.loads(measure.path_of("actors").read_text())
    assert kept["figures"] == 1
    assert kept["command"] == "scripts/bench_training.py --actors 1,2,4,8 --no-limits --json"
    assert asked[0][1:] == [str(ROOT / kept["command"].split()[0]), *kept["command"].split()[1:]]


def test_figures_have_three_digits_that_count(measure: Any) -> None:
    rounded = measure.pages.rounded
    assert [rounded(x) for x in (1_234_567.0, 761.4, 99.96, 1.234, 0.1234)] == [
        *("1,230,000", "761", "100", "1.23", "0.123")
    ]
    assert measure.pages.spread(figure(2000.0)) == "2,000 (1,000 to 4,000)"


def test_a_block_stands_with_both_ways_and_its_shares_of_redis_benchmark(measure: Any) -> None:
    # given three repeats, each figure of another size
    moved = {
        f"{size}_{way}_{name}": [scale * step for step in (3, 1, 2)]
        for size in ("64k", "512k", "1m")
        for way, name, scale in (
            *(("tcp", "mb_per_s", 100.0), ("tcp", "share", 0.25)),
            *(("unix", "mb_per_s", 200.0), ("unix", "share", 0.125)),
        )
    }

    # when
    written = measure.pages.transport_table({"figures": {"moved": moved}})

    # then
    rows = [f"| {size} | 200 | 0.50 (0.25 to 0.75) | 400 | 0.25 (0.12 to 0.38) |" for size in SIZES]
    assert written.splitlines()[2:] == rows


def test_peers_stand_beside_each_other_in_frames_and_in_seconds(measure: Any) -> None:
    # given one that was measured in both, one in seconds alone, and one that did not solve it
    ours = {"impala-redis": contestant(900.0, 1.0, **{"impala-redis": "1.0"})}
    fps = {"contestants": ours | {"rllib": contestant(100.0, 9.0, ray="2.0")}}
    solve = {
        "contestants": {
            "impala-redis": contestant(2.0, 1.0),
            "jax-loop-compiled": contestant(3.0, 1.5, jax="0.10.2"),
            "rllib": contestant(None, None),
        }
    }

    # then
    assert measure.pages.peers_table(fps, solve).splitlines()[2:] == [
        "| impala-redis (1.0) | 900 | | 2 | |",
        "| one loop in JAX, compiled before (JAX 0.10.2) | | | 3 | 1.50 |",
        "| RLlib, IMPALA (2.0) | 100 | 9.00 | not measured | |",
    ]


def test_a_time_to_solve_stands_over_that_of_importing_torch(measure: Any) -> None:
    seconds = {"wall_s_median": 1.0, "wall_s_worst": 1.5, "command_s_median": 1.25}
    ratios = {"torch_ratio_median": 0.75, "torch_ratio_worst": 0.8}
    rest = {"seeds": 10, "solved": 9, "frames_median": 90_000, "greedy_least": 499.6}
    written = measure.pages.solve_table({**seconds, **ratios, **rest})
    assert "| seconds from the command to solved | 1.00, at worst 1.50 |" in written
    assert "| over those of `import torch`, measured beside it | 0.75, at worst 0.80 |" in written
    assert "| solved | 9 of 10 seeds |" in written
