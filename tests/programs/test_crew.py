"""What impala-train does about its learner and actors, when they say something or end."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from impala_redis.common.errors import EXIT_INTERRUPTED, EXIT_LEARNER_KILLED
from impala_redis.workers import crew, voice
from impala_redis.workers.plan import make_plan

MakeCrew = Callable[[Callable[..., Any]], crew.Crew]


@pytest.fixture
def crew_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCrew:
    """Makes a crew of a learner and an actor that are started by a function of the test."""

    def make(start: Callable[..., Any]) -> crew.Crew:
        monkeypatch.setattr(crew.programs, "start", start)
        plan = make_plan(
            run="r",
            run_dir=tmp_path,
            preset_name="cartpole",
            config_file=None,
            resume=False,
            overrides={"num_actors": 1},
        )
        return crew.Crew(plan, "redis://localhost", [], [])

    return make


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, EXIT_INTERRUPTED),
        (signal.SIGTERM, EXIT_INTERRUPTED),
        (signal.SIGKILL, EXIT_LEARNER_KILLED),
        (signal.SIGSEGV, EXIT_LEARNER_KILLED),
    ],
)
def test_a_learner_that_a_signal_has_ended_early_was_interrupted(
    crew_of: MakeCrew, number: signal.Signals, code: int
) -> None:
    # given a learner that had no handlers yet, as when a terminal's Ctrl-C reaches all of us
    def start(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(poll=lambda: -number, wait=lambda: -number)

    made = crew_of(start)

    # when / then
    assert made.stop_learner() == code


def test_actors_are_asked_to_end_once_as_soon_as_the_learner_has_its_result(
    crew_of: MakeCrew,
) -> None:
    # given a learner that has reached its goal, and still writes what it has learned
    result = {"status": "solved", "mean_return_100": 480.0, "frames": 1, "wall_s": 1.0}
    asked: list[str] = []

    def start(*_: Any, log_file: Path, environment: dict[str, str], **__: Any) -> Any:
        name = log_file.stem
        if name == "learner":
            line = json.dumps({"result": result}).encode() + b"\n"
            os.write(int(environment[voice.VARIABLE]), line)
        return SimpleNamespace(poll=lambda: None, terminate=lambda: asked.append(name))

    made = crew_of(start)

    # when it is looked at twice
    made.look_after_actors()
    made.look_after_actors()

    # then
    assert asked == ["actor-0"]
    assert made.result == result


def test_the_last_words_of_a_lost_actor_are_news_and_the_error_with_which_it_ended(
    crew_of: MakeCrew, caplog: pytest.LogCaptureFixture
) -> None:
    # given programs of which the actors say something and end at once
    def start(*_: Any, log_file: Path, environment: dict[str, str], **__: Any) -> Any:
        name = log_file.stem
        for message in ({"log": "a block takes 60 s"}, {"error": "an environment hangs"}):
            if name != "learner":
                os.write(int(environment[voice.VARIABLE]), json.dumps(message).encode() + b"\n")
        return SimpleNamespace(poll=lambda: None if name == "learner" else 18)

    made = crew_of(start)

    # when it is replaced
    made.look_after_actors()

    # then
    assert "actor-0 ended (18): an environment hangs; actor-0.1 takes its place" in caplog.text
    assert made.news() == ["actor-0: a block takes 60 s"]
    assert made.news() == []
