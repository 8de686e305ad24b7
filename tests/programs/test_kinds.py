"""Every kind of network, observation and action, through the real programs for some seconds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from support import Programs

pytestmark = pytest.mark.processes

# Rooms: two parts, one of them a picture, and two choices at once. Drive: a picture, and numbers of
# which one has both bounds, one has one and one none. Episodes end and are cut in turns.
MODULE = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Task(gymnasium.Env):
    ends = True

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.ends = 0, not self.ends
        return self.seen(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        self.steps += 1
        over = self.steps == 5
        return self.seen(), self.reward(action), over and self.ends, over and not self.ends, {}


class Rooms(Task):
    observation_space = spaces.Dict(
        {
            "map": spaces.Box(0, 255, (40, 40, 3), np.uint8),
            "bag": spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)]),
            "mission": spaces.Text(20),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reward(self, action):
        return float(action[1])

    def seen(self):
        bag = (self.np_random.integers(3), np.zeros(2, np.int8))
        return {"map": np.full((40, 40, 3), self.steps, np.uint8), "bag": bag, "mission": "go left"}


class Drive(Task):
    observation_space = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    action_space = spaces.Box(
        np.array([-1, 0, -np.inf], np.float32), np.array([1, np.inf, np.inf], np.float32)
    )

    def reward(self, action):
        return float(action[0])

    def seen(self):
        return self.np_random.integers(0, 256, (3, 36, 36), np.uint8)


gymnasium.register("Drive-v0", entry_point=Drive)
gymnasium.register("Rooms-v0", entry_point=Rooms)
"""

SMALL = ("--envs-per-actor", "4", "--batch-size", "4", "--unroll-length", "8")
LSTM = ("--lstm-size", "8", "--extra-inputs", "last_action_reward")
KINDS: dict[str, tuple[str, ...]] = {
    "frames of Atari, three convolutions": ("--preset", "atari"),
    "frames of Atari, two convolutions": ("--preset", "atari-fast"),
    "frames of Atari, the deep network with a memory, in bfloat16": (
        *("--preset", "atari", "--network", "deep", "--hidden-sizes", "32"),
        *("--precision", "bfloat16", *LSTM),
    ),
    "a world of cells, with a mission and a memory": ("--preset", "minigrid"),
    "a memory where velocities are masked": ("--preset", "masked-cartpole"),
    "numbers as actions": ("--preset", "pendulum"),
    "colours and numbers as actions, with a memory, of which half is replayed": (
        *("--env", "rooms:Drive-v0", "--network", "nature", "--hidden-sizes", "16", *LSTM),
        *("--replay-share", "0.5", "--replay-capacity", "10"),
    ),
    "Box2D": ("--preset", "lunarlander"),
    "parts, a picture among them, and two choices": (
        *("--env", "rooms:Rooms-v0", "--network", "shallow", *LSTM, "--compression", "zstd"),
        *("--frame-stack", "2"),
    ),
}


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_and_its_policy_can_be_played(
    programs: Programs, tmp_path: Path, kind: str
) -> None:
    # given a module of the user's own, for one of them
    (tmp_path / "rooms.py").write_text(MODULE)
    here = {"PYTHONPATH": str(tmp_path)}

    # when it is trained for some updates, and played; without instructions for it, a processor
    # takes seconds for an update in bfloat16
    frames = 64 if "bfloat16" in kind else 640
    code, output = programs.run(
        *("impala-train", *KINDS[kind], *SMALL, "--total-frames", str(frames), "--run-dir", "run"),
        *("--stop-at-return", "none"),
        **here,
    )
    assert code == 0, output
    played, said = programs.run(
        *("impala-eval", "--checkpoint", "run", "--episodes", "2", "--max-steps", "20", "--json"),
        *("--env-module", "rooms"),
        **here,
    )

    # then it was trained on all it should, with finite figures, and no gradient was thrown away
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["frames"] >= frames
    records = records_of(programs.folder / "run")
    last, sizes = records[-1], [r["bytes_per_step"] for r in records if "bytes_per_step" in r]
    assert last["updates_skipped"] == 0
    assert last["blocks_refused"] == 0
    assert math.isfinite(last["total_loss"])
    assert last["game_frames"] == result["frames"] * (4 if "Atari" in kind else 1)
    if "Atari" in kind:
        # of each row one frame, and the three before the first: nothing is sent twice
        assert 0 < sizes[-1] <= 84 * 84 * (8 + 1 + 3) / 8 * 1.01
    assert played == 0, said
    assert json.loads(said.splitlines()[-1])["episodes"] == 2
