"""The benchmarks of acting, learning and training: every figure is there, and they end in order."""

import importlib
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from impala_redis.workers import process
from support import ROOT, Program, eventually, is_running

SCRIPTS = ROOT / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script by its name; it is run here, and must leave this process as it is."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(importlib.import_module("bench.measuring"), "begin", lambda: None)
    yield importlib.import_module
    torch.set_num_threads(threads)


def document_of(done: Result) -> Any:
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def assert_finite(figures: dict[str, dict[str, float]]) -> None:
    for name, spread in figures.items():
        assert spread["low"] <= spread["median"] <= spread["high"], name
        assert all(map(math.isfinite, spread.values())), (name, spread)


def training(log: Path, *options: str) -> Program:
    command = [sys.executable, str(SCRIPTS / "bench_training.py"), *options]
    return Program(command, dict(os.environ), SCRIPTS.parent, log)


def test_learning_is_measured_by_stage_beside_the_bare_computation(scripts: Any) -> None:
    # when
    options = ["--seconds", "0.02", "--repeat", "2", "--batch-size", "2,4", "--threads", "1"]
    done = CliRunner().invoke(scripts("bench_learning").main, [*options, "--unroll-length", "5"])

    # then
    document = document_of(done)
    cases = [f"{engine}, batch {b}, threads 1" for b in (2, 4) for engine in ("numpy", "torch")]
    assert list(document["figures"]) == cases
    for figures in document["figures"].values():
        assert_finite(figures)
        stages = ("transfer_s", "forward_s", "backward_s", "optimizer_s", "other_s")
        assert figures.keys() >= {"frames_per_s", "limit_frames_per_s", "share", "bare_s", *stages}
        # and below the roofline, by the product that was measured in the same turns
        assert 0 < figures["roofline_share"]["median"] < 1
        rates = {"gflops", "product_gflops", "roofline_frames_per_s", "update_p10_s"}
        assert figures.keys() >= {"kflop_a_frame", *rates, "roofline_share_p10"}
    assert document["about"].keys() >= {"cores", "torch", "others_cores", "env"}
    assert "| 4 x 5, numpy | " in scripts("bench.pages").learning_table(document)


def test_an_engine_that_there_is_not_is_named(scripts: Any) -> None:
    done = CliRunner().invoke(scripts("bench_learning").main, ["--engine", "torch,steam"])
    assert done.exit_code == 2
    assert "steam is none of " in done.stderr


def test_only_torch_is_measured_where_numpy_cannot_compute_the_network(scripts: Any) -> None:
    # given a network with a memory
    options = ["--preset", "masked-cartpole", "--unroll-length", "4", "--batch-size", "2"]
    options += ["--seconds", "0.01", "--repeat", "1", "--threads", "1"]

    # when nothing is said of engines, or numpy is asked for
    bench = scripts("bench_learning")
    unsaid, asked = (
        CliRunner().invoke(bench.main, [*options, *engine]) for engine in ([], ["--engine=numpy"])
    )

    # then the first has torch's case alone, and the other is refused
    assert list(document_of(unsaid)["figures"]) == ["torch, batch 2, threads 1"]
    assert asked.exit_code == 2
    assert asked.stderr.startswith("error: --engine numpy cannot be used")


def test_the_limit_is_of_the_engine_that_trains(scripts: Any) -> None:
    engine_of = scripts("bench_training").engine_of
    assert engine_of(["--seed", "0"]) == "auto"
    assert engine_of(["--engine", "numpy", "--seed", "0", "--engine=torch"]) == "torch"


def test_the_bare_loss_is_the_learners_own(scripts: Any) -> None:
    # given a batch of which every row counts, and a network's answers
    from impala_redis.common.loss.impala import LossInput, impala_loss
    from impala_redis.common.run.config import Config
    from impala_redis.common.run.spaces import discrete

    bare = scripts("bench.plain_torch")
    draw = torch.Generator().manual_seed(0)
    t, b, a = 7, 5, 3
    logits = torch.randn(t + 1, b, a, generator=draw)
    values = torch.randn(t + 1, b, generator=draw)
    rows = LossInput(
        actions=torch.randint(a, (t, b), generator=draw),
        rewards=torch.randn(t, b, generator=draw),
        discounts=(torch.rand(t, b, generator=draw) > 0.2).float(),
        behaviour_log_probs=-3 * torch.rand(t, b, generator=draw),
        mask=torch.ones(t, b, dtype=torch.bool),
        tasks=torch.zeros(b, dtype=torch.int64),
    )
    settings = Config().replace({"reduction": "mean"}).loss

    # then it is the same number
    action, cost = discrete(a), settings.entropy_cost
    losses, _ = impala_loss(action, logits[:-1], values, rows, settings, cost)
    found = bare.bare_loss(action, logits, values, rows, settings)
    assert found.item() == pytest.approx(losses.total.item(), rel=1e-5)


def test_acting_is_measured_by_part_and_in_torch_too(scripts: Any) -> None:
    # when
    options = ["--seconds", "0.02", "--repeat", "1", "--envs-per-actor", "1,3"]
    done = CliRunner().invoke(scripts("bench_acting").main, options)

    # then
    document = document_of(done)
    assert list(document["figures"]) == ["1 environments", "3 environments"]
    for figures in document["figures"].values():
        assert_finite(figures)
        parts = {"unroll_s", "environment_s", "policy_s", "rest_s", "pack_s", "bytes_none"}
        assert figures.keys() >= {"share", "limit_frames_per_s", "torch_s", "traced_s", *parts}
    assert "torch, traced" in done.stdout


def test_acting_is_measured_with_an_actors_own_options(scripts: Any) -> None:
    # when
    options = ["--preset", "masked-cartpole", "--network", "mlp", "--unroll-length", "4"]
    options += ["--envs", "40", "--device", "cpu", "--env-threads", "2"]
    options += ["--seconds", "0.01", "--repeat", "1", "--json"]
    done = CliRunner().invoke(scripts("bench_acting").main, options)

    # then
    document = document_of(done)
    (figures,) = document["figures"].values()
    assert_finite(figures)
    assert figures.keys() >= {"policy_frames_per_s", "environment_frames_per_s", "pack_s"}
    assert document["about"].items() >= {"device": "cpu", "env_threads": 2}.items()


@pytest.mark.parametrize("script", ["bench_acting", "bench_learning"])
@pytest.mark.parametrize("preset", ["atari-fast", "masked-cartpole", "pendulum"])
def test_pictures_memory_and_numbers_as_actions_are_measured_too(
    scripts: Any, script: str, preset: str
) -> None:
    if preset == "atari-fast":
        pytest.importorskip("ale_py")
        pytest.importorskip("zstandard")
    # when
    size = {"bench_acting": "--envs-per-actor", "bench_learning": "--batch-size"}[script]
    options = ["--preset", preset, "--seconds", "0.01", "--repeat", "1", "--unroll-length", "4"]
    threads = ["--threads", "1"] if script == "bench_learning" else []
    done = CliRunner().invoke(scripts(script).main, [*options, size, "2", *threads])

    # then all figures are there; those of a policy written anew in PyTorch are for small networks
    figures, *_ = document_of(done)["figures"].values()  # of the engine that training takes
    assert_finite(figures)
    assert "traced_s" not in figures
    assert figures.keys() >= {"frames_per_s", "limit_frames_per_s", "share"}
    if (script, preset) == ("bench_acting", "atari-fast"):
        # a frame of 84 by 84 travels once a step, and three more before the first
        frames = 84 * 84 * (4 + 1 + 3) / 4
        assert frames < figures["bytes_none"]["median"] < frames + 300
        assert figures["bytes_zstd"]["median"] < frames / 4


def test_feeding_is_measured_by_part_and_beside_a_busy_thread(
    scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "share_the_interpreter", lambda: None)
    # when: wider than what is played together, and with a memory of the network
    options = ["--seconds", "0.02", "--repeat", "1", "--blocks", "1"]
    cases = ["cartpole:70", "masked-cartpole"]
    done = CliRunner().invoke(scripts("bench_feeding").main, [*options, "--cases", ",".join(cases)])

    # then
    document = document_of(done)
    assert list(document["figures"]) == cases
    for figures in document["figures"].values():
        assert_finite(figures)
        assert figures.keys() >= {"unpack_us", "unpack_p10_us", "copy_us", "beside_busy_us"}
        assert figures["feeder_us"]["median"] > 0
        assert 0.5 < figures["memory"]["median"] < 3
    # a step of CartPole has 4 numbers, 4 more of four bytes, and 2 flags
    assert 34 < document["figures"]["cartpole:70"]["wire_bytes"]["median"] < 40


@pytest.mark.parametrize("script", ["bench_acting", "bench_learning"])
def test_what_cannot_be_measured_is_said_in_a_sentence(scripts: Any, script: str) -> None:
    done = CliRunner().invoke(scripts(script).main, ["--preset", "chess"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: there is no preset 'chess'")
    assert done.stderr.count("\n") == 1


@pytest.mark.processes
def test_training_is_measured_beside_its_limit(scripts: Any, tmp_path: Path) -> None:
    # when a training is measured, of other settings than the preset's
    options = ("--seconds", "1", "--warm-up-s", "1", "--repeat", "1")
    given = ("--batch-size", "16", "--envs-per-actor", "16", "--unroll-length", "10")
    program = training(tmp_path / "log", *options, "--", *given)
    code = program.code()

    # then all of it is in the last line
    assert code == 0, program.output
    assert "Traceback" not in program.output
    document = json.loads(program.output.splitlines()[-1])
    (figures,) = document["figures"].values()
    assert_finite(figures)
    speeds = ("limit_frames_per_s", "learner_limit_frames_per_s", "actors_limit_frames_per_s")
    queue = ("played_per_s", "policy_lag_mean", "policy_lag_p95", "dropped_share")
    stages = ("wait_s", "forward_s", "weights_s", "other_s", "alone_forward_s")
    beside = ("feeder_cpu_s", "publisher_cpu_s", "updates_per_s", "non_compute_share")
    alone = ("environment_frames_per_s", "policy_frames_per_s", "shared_frames_per_s")
    alone += ("roofline_frames_per_s", "roofline_share")
    assert figures.keys() >= {"share", *speeds, *queue, *stages, *beside, *alone}
    assert "shared perfectly" in program.output
    pages = scripts("bench.pages")
    assert all(
        w(document) for w in (pages.throughput_table, pages.stages_table, pages.pixels_table)
    )
    assert [row["figure"] for row in document["targets"]] == ["share", "non_compute_share"]

    # and it was trained, and the limit taken, with these settings
    median = {name: spread["median"] for name, spread in figures.items()}
    frames = median["frames_per_s"] * median["update_s"]
    assert frames == pytest.approx(16 * 10 * median["real_share"])
    assert median["share"] == pytest.approx(median["frames_per_s"] / median["limit_frames_per_s"])

    # and the cores shared perfectly give no more than each part could on all of them
    cores = min(document["about"]["cores"], 2)
    parts = ("environment", "policy")
    assert all(
        median["shared_frames_per_s"] < cores * median[f"{part}_frames_per_s"] for part in parts
    )


def test_two_settings_take_turns_and_are_compared_repeat_by_repeat(
    scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given trainings whose speeds are known
    trained: list[Any] = []
    speeds = iter([100.0, 150.0, 300.0, 100.0])  # the second repeat goes backwards

    def measured(variant: Any, options: list[str], clock: Any, folder: Path) -> dict[str, float]:
        trained.append((variant.options, variant.variables, options))
        names = ("update_s", *steady.STAGES, "other_s", *steady.BESIDE, "non_compute_share")
        queue = ("played_per_s", "policy_lag_mean", "policy_lag_p95", "dropped_share")
        others = dict.fromkeys((*names, *queue, "others_cores"), 0.0)
        speed = next(speeds)
        return others | {"frames_per_s": speed, "game_frames_per_s": 4 * speed}

    steady = scripts("bench.steady")
    monkeypatch.setattr(steady, "measured", measured)

    # when a second one has a variable and an option more
    versus = "A_VARIABLE=some/path --threads 2"
    options = ["--no-limits", "--repeat", "2", "--versus", versus, "--", "--batch-size", "16"]
    done = CliRunner().invoke(scripts("bench_training").main, options)

    # then both are trained with the same options and seeds, and the ratios are those of repeats
    first, second = ([], {}), (["--threads", "2"], {"A_VARIABLE": "some/path"})
    assert [of[:2] for of in trained] == [first, second, second, first]
    seeds = [of[2][of[2].index("--seed") + 1] for of in trained]
    assert seeds == ["0", "0", "1", "1"]
    assert all(of[2][-2:] == ["--batch-size", "16"] for of in trained)
    ratio = document_of(done)["ratios"][versus]
    assert ratio == {"median": 2.25, "low": 1.5, "high": 3.0}
    assert "2.250 (1.500 to 3.000)" in done.stdout

    # and the frames of the game, which are four to a step, are told apart
    assert "of the game" in done.stdout and "900 (600 to 1,200)" in done.stdout


def test_the_steady_part_is_after_the_warm_up(scripts: Any) -> None:
    # given records of a training whose first update came after a second
    numpy, history = (
        importlib.import_module("numpy"),
        importlib.import_module("impala_redis.common.records.history"),
    )
    times = numpy.arange(1.0, 9.0)  # [8]
    numbers = {"time_s": times, "updates": numpy.maximum(times - 2.0, 0.0)}
    records = history.RunRecords(len(times), numbers, {})

    # when two seconds are warm-up and three are measured
    window = scripts("bench.steady").steady(records, scripts("bench.steady").Clock(2.0, 3.0))

    # then they begin with the first update, at 3 s
    assert window.column("time_s").tolist() == [5.0, 6.0, 7.0, 8.0]


def some_run(stages: dict[str, float]) -> Any:
    """A run with updates of 10 ms, of which these stages are a part."""
    numpy, history = (
        importlib.import_module("numpy"),
        importlib.import_module("impala_redis.common.records.history"),
    )
    rising = numpy.arange(1.0, 5.0)  # [4]
    numbers = {"time_s": 0.1 * rising, "updates": 10 * rising, "frames": 6400 * rising}
    numbers |= {"blocks_produced": 10 * rising, "blocks_dropped": 0 * rising}
    constant = {"wait_s": 0.001, "transfer_s": 0.001, "weights_s": 0.0005} | stages
    constant |= dict.fromkeys(("policy_lag_mean", "policy_lag_p95", "published_per_s"), 1.0)
    constant |= dict.fromkeys(("actor_frames_per_s_mean", "feeder_cpu_s", "publisher_cpu_s"), 1.0)
    numbers |= {name: numpy.full(4, value) for name, value in constant.items()}
    settings = {"batch_size": 32, "unroll_length": 20, "envs_per_actor": 32, "env": "CartPole-v1"}
    records = history.RunRecords(4, numbers, {})
    return history.Run(Path("run"), "run", None, settings, {}, records, 0)


def test_a_training_of_cuda_graphs_has_its_figures_without_a_hole(scripts: Any) -> None:
    # given records of updates of 10 ms, of which a graph on a GPU takes 3
    run = some_run({"graph_s": 0.003})

    # when
    figures = scripts("bench.steady").figures_of(run.records, run)
    spreads = scripts("bench.measuring").spreads([figures])
    heads = [column.header for column in scripts("bench_training").stages({"a": spreads}).columns]

    # then
    assert all(map(math.isfinite, figures.values()))
    assert figures["computing_s"] == figures["graph_s"] == pytest.approx(0.003)
    assert figures["non_compute_share"] == pytest.approx(0.7)
    assert figures["other_s"] == pytest.approx(0.0045)
    assert "forward_s" not in figures
    assert heads[1:7] == ["update", "wait", "transfer", "weights", "graph", "other"]


def test_a_training_by_several_learners_tells_what_adding_up_takes(scripts: Any) -> None:
    # given records of updates of 10 ms, in which learners add up their gradients for 1
    computing = {"forward_s": 0.001, "backward_s": 0.002, "optimizer_s": 0.001}
    run = some_run({"transfer_s": 0.0, **computing, "exchange_s": 0.001})

    # when
    figures = scripts("bench.steady").figures_of(run.records, run)

    # then it is a stage of its own, and no computing
    assert figures["exchange_s"] == pytest.approx(0.001)
    assert figures["computing_s"] == pytest.approx(0.004)
    assert figures["other_s"] == pytest.approx(0.010 - 0.001 - 0.004 - 0.001 - 0.0005)
    document = {"figures": {"a": {name: {"median": value} for name, value in figures.items()}}}
    assert "| optimizer | exchange | weights |" in scripts("bench.pages").stages_table(document)


@pytest.mark.processes
def test_a_training_that_fails_is_told_by_its_own_words(tmp_path: Path) -> None:
    # when
    program = training(tmp_path / "log", "--seconds", "1", "--", "--env", "NoSuch-v0")

    # then
    assert program.code() == 1
    assert program.output.startswith("error: impala-train ended with 3 before it was measured: ")
    assert "NoSuch" in program.output
    assert program.output.count("\n") == 1


@pytest.mark.processes
def test_ctrl_c_ends_the_training(tmp_path: Path) -> None:
    # given a training under way: impala-train with a server, a learner and an actor
    program = training(tmp_path / "log", "--no-limits", "--seconds", "60")

    def family() -> list[int]:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        paths = (Path(f"/proc/{child}/task/{child}/children") for child in children)
        return [int(pid) for path in paths for pid in [path.parent.name, *path.read_text().split()]]

    pids = eventually(lambda: found if len(found := family()) >= 4 else [])

    # when it is interrupted
    program.send(signal.SIGINT)

    # then it goes without a word, and nothing is left
    assert program.code() == 130, program.output
    assert program.output == ""
    assert not any(is_running(pid) for pid in pids)
