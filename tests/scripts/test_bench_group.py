"""The benchmark of several learners: what it starts, and what it makes of their records."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from impala_redis.common.records.history import Run, read_run
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from support import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(importlib.import_module("bench.measuring"), "begin", lambda: None)
    return importlib.import_module("bench_group")


def run_of(folder: Path, ranks: int) -> Run:
    """A run of 3 s whose learners together trained on 1,000 frames/s each."""
    directory = RunDirectory(folder)
    directory.write_config("bench", None, Config())
    shares: dict[str, float] = {"wait_share": 0.1}
    for rank in range(ranks if ranks > 1 else 0):
        shares |= {f"wait_share:{rank}": 0.2 * rank, f"standby_share:{rank}": 0.5 - 0.5 * rank}
    records = [
        {"time_s": 0.1 * n, "updates": n, "frames": 100 * n * ranks, **shares} for n in range(1, 31)
    ]
    directory.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return read_run(folder)


def test_each_number_of_learners_is_trained_and_compared_with_the_first(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given trainings that have ended already
    started = []

    def train(variant: Any, options: Sequence[str], clock: Any, folder: Path) -> Run:
        started.append([*options, *variant.options])
        _, _, number = " ".join(variant.options).rpartition(" ")
        return run_of(folder, int(number or 1))

    monkeypatch.setattr(bench.steady, "train", train)

    # when
    options = ["--ranks", "1,2", "--preset", "cartpole", "--seconds", "2", "--warm-up-s", "0.5"]
    done = CliRunner().invoke(bench.main, [*options, "--repeat", "2", "--", "--num-actors", "3"])

    # then each was started with the options, in turns
    assert done.exit_code == 0, done.output
    given = ["--preset", "cartpole", "--seed", "0", "--num-actors", "3"]
    assert started[:2] == [given, [*given, "--learners", "2"]]
    given[3] = "1"
    assert started[2:] == [[*given, "--learners", "2"], given]

    # and the last line has speeds, ratios, and the shares of all learners
    document = json.loads(done.stdout.splitlines()[-1])
    alone, two = (document["figures"][name] for name in ("1 learner", "2 learners"))
    assert alone["frames_per_s"]["median"] == pytest.approx(1000.0)
    assert two["frames_per_s"]["median"] == pytest.approx(2000.0)
    assert document["ratios"]["2 learners"]["median"] == pytest.approx(2.0)
    shares = ("wait_share", "standby_share")
    assert [alone[name]["median"] for name in shares] == pytest.approx([0.1, 0.0])
    assert [two[name]["median"] for name in shares] == pytest.approx([0.1, 0.25])


def test_there_are_as_many_learners_as_devices(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    found = []
    for cards in (0, 1, 3, 8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        found.append(bench.sizes_here())
    assert found == [[1, 2], [1], [1, 2], [1, 2, 4, 8]]
