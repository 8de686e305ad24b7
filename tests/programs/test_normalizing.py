"""Normalisation through the real programs: two actors, replay, a memory, a resume and a game."""

import json

import numpy as np
import pytest

from impala_redis.common.records import checkpoint
from support import Programs

pytestmark = pytest.mark.processes

NORMALIZED = (
    *("--normalize-observations", "--normalize-rewards", "--normalize-advantages"),
    *("--reward-clipping", "none"),
)
SMALL = (
    *("--env", "Pendulum-v1", "--envs-per-actor", "4", "--num-actors", "2", "--batch-size", "4"),
    *("--unroll-length", "8", "--replay-share", "0.5", "--replay-capacity", "16"),
)
KINDS = {
    "a perceptron, by weights in bfloat16": ("--weights-dtype", "bfloat16"),
    "a memory behind stacks of frames": ("--lstm-size", "8", "--frame-stack", "2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_normalised_run_trains_goes_on_and_is_played(programs: Programs, kind: str) -> None:
    # given a run
    code, output = programs.run(
        *("impala-train", *SMALL, *NORMALIZED, *KINDS[kind], "--run-dir", "run"),
        *("--total-frames", "640"),
    )
    assert code == 0, output
    run = programs.folder / "run"
    before = checkpoint.load(run).tensors

    # when it goes on, and is played
    resume = ("impala-train", "--resume", "--run-dir", "run", "--total-frames", "1280")
    code, output = programs.run(*resume)
    assert code == 0, output
    after = checkpoint.load(run).tensors
    played, said = programs.run(
        *("impala-eval", "--checkpoint", "run", "--episodes", "1", "--max-steps", "20", "--json")
    )

    # then the figures have grown from what they were, once for each fresh row
    frames = json.loads((run / "result.json").read_text())["frames"]
    for of in ("observations", "rewards"):
        assert before[f"moments.{of}.count"][0] >= 640
        assert after[f"moments.{of}.count"][0] == frames
    mean, std = after["model.normalizer.mean"], 1 / after["model.normalizer.inverse_std"]
    np.testing.assert_allclose(mean, after["moments.observations.mean"], rtol=1e-6)
    assert std[2] > std[0]  # the velocity, which is up to 8; the others are a cosine and a sine
    assert played == 0, said
    assert json.loads(said.splitlines()[-1])["episodes"] == 1


def test_a_normalised_run_is_recorded_and_reported(programs: Programs) -> None:
    # given
    pytest.importorskip("moviepy")
    pytest.importorskip("matplotlib")
    train = ("impala-train", *SMALL, *NORMALIZED, "--run-dir", "run", "--total-frames", "320")
    code, output = programs.run(*train)
    assert code == 0, output

    # when
    evaluate = ("impala-eval", "--checkpoint", "run", "--episodes", "1", "--max-steps", "20")
    code, output = programs.run(*evaluate, "--video", "videos")

    # then
    assert code == 0, output
    assert len(list((programs.folder / "videos").glob("*.mp4"))) == 1

    # and the report draws by what the rewards were divided
    assert "Deviation that rewards are divided by" in programs.page_of("run")
