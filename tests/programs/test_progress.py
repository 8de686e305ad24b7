"""What impala-train shows of a run: lines, the panel, and how it ends."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from impala_redis.common.blocks.trajectory import Block, Origin, Unfit
from impala_redis.common.errors import MessageRefused
from impala_redis.common.feeding.tally import Refusals
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.workers import training as training_module
from impala_redis.workers.progress import Progress
from impala_redis.workers.training import Training, actor_command

# A learner that has refused everything for the first five seconds.
ALL_REFUSED = {
    "time_s": 5.0,
    "frames": 0,
    "frames_per_s": 0.0,
    "queue_blocks": 3,
    "columns_refused": 3375,
    "refused_share": 1.0,
    "refused_rewards": 3300,
    "refused_spec": 75,
}
WORDS = "3,375 columns refused, 100.0 % of the last ones: rewards are not finite"


class View:
    """A progress of a run directory whose learner is the test."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.directory = RunDirectory(path)
        self.progress = Progress(self.directory, Config())

    def write(self, *records: dict[str, Any]) -> None:
        with self.directory.metrics.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        self.progress.update()

    def panel(self) -> str:
        console = Console(width=150)
        with console.capture() as capture:
            console.print(self.progress._panel())
        return capture.get()


@pytest.fixture
def view(tmp_path: Path) -> View:
    return View(tmp_path / "run")


def test_what_is_refused_stands_in_lines_and_panel_with_share_and_cause(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    view.write(ALL_REFUSED)
    assert WORDS in capsys.readouterr().out
    assert WORDS in view.panel()


def test_what_is_too_old_stands_there_too(view: View, capsys: pytest.CaptureFixture[str]) -> None:
    stale = {"columns_refused": 0, "columns_stale": 64, "stale_share": 0.5}
    view.write(ALL_REFUSED | {"refused_rewards": 0, "refused_spec": 0} | stale)
    words = "64 columns too old, 50.0 % of the last ones: see --max-policy-lag"
    assert words in capsys.readouterr().out
    assert words in view.panel()


# A learner on a GPU, each update of which is one CUDA graph.
AS_GRAPHS = {
    "time_s": 5.0,
    "frames": 64_000,
    "frames_per_s": 12_800.0,
    "updates": 600,
    "updates_per_s": 120.0,
    "policy_lag_mean": 3.0,
    "queue_blocks": 3,
    "wait_share": 0.02,
    "dropped_share": 0.0,
    "device_busy_share": 0.3,
    "device_memory_bytes": 1_300_000_000,
    "transfer_s": 0.0005,
    "graph_s": 0.002,
}


def test_a_gpu_has_its_busy_share_its_memory_and_the_stage_that_binds_in_the_panel(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    # when
    view.write(AS_GRAPHS)

    # then
    assert re.search(r"device busy +30%, 1,300 MB held ", view.panel())
    assert re.search(r"binds +host 68% ", view.panel())
    assert "nan" not in (view.panel() + capsys.readouterr().out).lower()


def test_a_cpu_holds_no_memory_of_a_gpu_and_is_shown_without(view: View) -> None:
    record = {name: value for name, value in AS_GRAPHS.items() if name != "device_memory_bytes"}
    view.write(record | {"device_busy_share": 0.9})
    assert re.search(r"device busy +90% ", view.panel())
    assert "held" not in view.panel()
    assert re.search(r"binds +device 84% ", view.panel())


def test_before_the_books_are_known_no_stage_is_said_to_bind(view: View) -> None:
    assert re.search(r"device busy +- ", view.panel())
    view.write({name: value for name, value in AS_GRAPHS.items() if name != "dropped_share"})
    assert "binds" not in view.panel()


def test_without_refusals_nothing_is_said_of_them(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = dict.fromkeys(("columns_refused", "refused_rewards", "columns_stale"), 0)
    view.write(ALL_REFUSED | {"refused_spec": 0} | nothing)
    shown = capsys.readouterr().out + view.panel()
    assert "0 frames" in shown
    assert "columns" not in shown


# The end.

RESULT = {"status": "solved", "mean_return_100": 480.0, "frames": 50_000, "wall_s": 3.0}


def test_the_end_is_told_by_the_learners_own_words_and_not_by_a_file(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    # given the result of an earlier time in the directory, and a learner that could not write
    view.directory.write_result(RESULT | {"status": "finished", "frames": 7})

    # when
    view.progress.conclude(10, "the run is solved, but result.json could not be written", RESULT)

    # then
    out, err = capsys.readouterr()
    assert out.startswith("solved: mean return 480.0 over the last 100 episodes; 50,000 frames")
    assert err == "error: the run is solved, but result.json could not be written\n"


def test_a_learner_that_was_killed_on_the_way_has_trained(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    view.write(ALL_REFUSED | {"frames": 501_120})
    view.progress.conclude(130, None, None)
    assert "stopped after 501,120 frames, without a result; logs: " in capsys.readouterr().out


def test_a_learner_without_a_record_has_not_begun(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    view.progress.conclude(130, None, None)
    assert "stopped before the training began; logs: " in capsys.readouterr().out


def test_lines_that_a_full_disk_has_cut_are_passed_over(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    # given half a record, with others around it
    view.write(ALL_REFUSED)
    with view.directory.metrics.open("a") as file:
        file.write('{"time_s": 6.0, "fra\n[1]\n')
    view.write(ALL_REFUSED | {"frames": 77})

    # then
    assert "of 77" not in view.panel()
    assert "77 of " in view.panel()


def test_a_file_that_has_become_shorter_is_followed_from_its_end(view: View) -> None:
    view.write(ALL_REFUSED, ALL_REFUSED)
    data = view.directory.metrics.read_bytes()
    view.directory.metrics.write_bytes(data[: len(data) // 2])
    view.progress.update()
    view.write(ALL_REFUSED | {"frames": 77})
    assert "77 of " in view.panel()


# The learner's own notice when no batch comes.


class Waiting:
    """A training in which no batch comes, on a clock that the test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(training_module, "time", clock)
        monkeypatch.setattr(training_module.pacing, "time", clock)
        self.refusals = Refusals(envs_per_actor=8)
        self.batch: Any = None
        made = Training(
            spec=cast(Any, None),
            actor_command=actor_command("mine", Config(), "redis://here/0"),
            learner=cast(Any, None),
            feeder=cast(
                Any, SimpleNamespace(next_batch=lambda _: self.batch, away=False, failure=None)
            ),
            publisher=cast(Any, SimpleNamespace(failure=None)),
            logbook=cast(Any, SimpleNamespace(note_wait=lambda *_: None, refusals=self.refusals)),
            delay=cast(Any, None),
        )
        made._last_batch_at = 0.0
        self.training = made

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.training.next_batch(stop=False, saving=False)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Waiting:
    caplog.set_level(logging.INFO)
    return Waiting(monkeypatch)


def test_a_learner_asks_for_actors_by_a_command_that_finds_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "redis://me:secret@here/0"
    for env_id, trust in (
        ("CartPole-v1", ""),
        ("far:Far-v0", " --env-module far"),
        (f"{tmp_path}/my envs/far.py:Far-v0", " --env-module 'my envs/far.py'"),
    ):
        command = f"impala-actor --run mine --redis-url 'redis://***@here/0'{trust}"
        assert actor_command("mine", Config().replace({"env": env_id}), url) == command

    # and one that finds the wrappers, each module once
    named = {"env": "far:Far-v0", "wrapper": ["near:One", "far:Two"], "network": "nets:Own"}
    command = actor_command("mine", Config().replace(named), url)
    assert command.endswith(" --env-module far --env-module near --network-module nets")

    # and, by its id, the environment whose arguments were typed
    command = actor_command("mine", Config().replace({"env_kwargs": {"path": "x"}}), url)
    assert command.endswith(" --env-module CartPole-v1")


def test_a_learner_that_refuses_all_says_why_and_asks_for_no_actors(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        waiting.refusals.note_refusal(
            MessageRefused("nonfinite", "rewards are not finite", "rewards")
        )
    waiting.wait(30.0)
    assert caplog.messages == [
        "no full batch for 30 s, although 24 columns came: 24 were refused, the last because "
        "rewards are not finite; look at the environment and at which actors there are"
    ]


def test_a_learner_that_rejects_all_as_too_old_says_so(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    block = cast(Block, SimpleNamespace(num_envs=8, unfit=(), episodes_left_out=0))
    waiting.refusals.note_block(block, stale=True)
    waiting.wait(30.0)
    assert caplog.messages == [
        "no full batch for 30 s, although 8 columns came: 8 were too old; raise --max-policy-lag, "
        "or lower --queue-blocks"
    ]


def test_only_what_came_since_the_last_batch_is_counted(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    # given columns that were refused before a batch came
    unfit = (Unfit("nonfinite", "observations", "observations are not finite", 3),)
    origin = Origin("a", 1, 1, 0)
    fields = {"num_envs": 8, "unfit": unfit, "episodes_left_out": 0, "origin": origin}
    block = cast(Block, SimpleNamespace(**fields))
    waiting.refusals.note_block(block, stale=False)
    waiting.batch = object()
    waiting.wait(1.0)

    # when none comes any more
    waiting.batch = None
    waiting.wait(30.0)

    # then it is the actors that are missing
    (said,) = caplog.messages
    assert said.startswith("no trajectories for 30 s; start actors with: impala-actor --run mine")

    # and where too few come, that is said
    few = cast(Block, SimpleNamespace(num_envs=8, unfit=(), episodes_left_out=0))
    waiting.refusals.note_block(few, stale=False)
    waiting.wait(30.0)
    assert "although 8 columns came: they are too few for a batch" in caplog.messages[-1]
