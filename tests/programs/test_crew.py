"""What impala-train makes of the end of its learner."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from impala_redis.common.errors import EXIT_INTERRUPTED, EXIT_LEARNER_KILLED
from impala_redis.workers import crew
from impala_redis.workers.plan import make_plan


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    # given a learner that had no handlers yet, as when a terminal's Ctrl-C reaches all of us
    def start(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(poll=lambda: -number, wait=lambda: -number)

    monkeypatch.setattr(crew.programs, "start", start)
    plan = make_plan(
        run="r",
        run_dir=tmp_path,
        preset_name="cartpole",
        config_file=None,
        resume=False,
        overrides={"num_actors": 1},
    )
    made = crew.Crew(plan, "redis://localhost", [], [])

    # when / then
    assert made.stop_learner() == code
