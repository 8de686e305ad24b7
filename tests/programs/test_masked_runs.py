"""Action masks through the real programs: a game that raises on illegal moves is learned."""

import json
import re

import pytest

from impala_redis.common.playing.saved import from_checkpoint
from support import ROOT, Programs

pytestmark = pytest.mark.processes

EXAMPLE = (ROOT / "docs" / "examples" / "tictactoe.py").read_text()

# The same game, which tells of the free cells in its infos, and draws itself.
TOLD = """
import gymnasium
import numpy as np
import tictactoe


class Told(tictactoe.TicTacToe):
    observation_space = tictactoe.TicTacToe.observation_space["board"]
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        seen, _ = super().reset(seed=seed)
        return seen["board"], {"action_mask": seen["action_mask"]}

    def step(self, action):
        seen, *others, _ = super().step(action)
        return seen["board"], *others, {"action_mask": seen["action_mask"]}

    def render(self):
        return np.kron(np.reshape(self.board, (3, 3, 1)), np.full((16, 16, 3), 100)).astype("uint8")


gymnasium.register("Told-v0", Told)
"""

# A part of that name which is no mask: too few numbers, all of them 0.
ODD = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Odd(gymnasium.Env):
    observation_space = spaces.Dict(NAME=spaces.MultiBinary(2), wanted=spaces.MultiBinary(6))
    action_space = spaces.Discrete(6)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wanted = int(self.np_random.integers(6))
        return self.seen(), {}

    def step(self, action):
        return self.seen(), float(action == self.wanted), True, False, {}

    def seen(self):
        return {"NAME": np.zeros(2, np.int8), "wanted": np.eye(6, dtype=np.int8)[self.wanted]}


gymnasium.register("Odd-v0", Odd)
"""

SMALL = ("--envs-per-actor", "8", "--batch-size", "8", "--unroll-length", "5")


def test_the_example_is_learned_by_the_command_in_the_docs(programs: Programs) -> None:
    # given
    page = (ROOT / "docs" / "environments.md").read_text()
    (programs.folder / "tictactoe.py").write_text(EXAMPLE)
    train, evaluate = re.findall(r"^\$ (impala-\w+ .*tictactoe.*)$", page, re.MULTILINE)

    # when the two commands of the page are typed
    training = programs.shell(train)
    assert training.code() == 0, training.output
    playing = programs.shell(f"{evaluate} --json")

    # then no move was illegal, and nearly all games are won
    assert playing.code() == 0, playing.output
    report = json.loads(playing.output.splitlines()[-1])
    assert report["greedy"]
    assert report["mean_return"] >= 0.9
    spec, _ = from_checkpoint(programs.folder / "runs" / "tictactoe")
    assert spec.observation.mask == "action_mask"
    assert spec.observation.num_features == 27


def test_masks_from_infos_hold_beside_a_memory_stacks_replay_and_in_a_resumed_run(
    programs: Programs,
) -> None:
    # given
    (programs.folder / "tictactoe.py").write_text(EXAMPLE)
    (programs.folder / "told.py").write_text(TOLD)
    train = ("impala-train", "--run-dir", "run", "--env", "told:Told-v0", "--mask-from", "info")
    train += (*SMALL, "--hidden-sizes", "8", "--lstm-size", "4", "--frame-stack", "2")
    train += ("--extra-inputs", "last_action_reward", "--replay-share", "0.5")

    # when
    code, output = programs.run(*train, "--total-frames", "1500")
    assert code == 0, output
    code, output = programs.run(*train, "--total-frames", "3000", "--resume")
    assert code == 0, output
    code, played = programs.run("impala-eval", "--checkpoint", "run", "--env-module", "told")

    # then no move was illegal, and no block unfit
    assert code == 0, played
    assert "failed" not in output
    last = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["frames"] >= 3000
    assert not [name for name, value in last.items() if name.startswith("refused") and value]


def test_a_masked_run_is_recorded_and_reported(programs: Programs) -> None:
    # given a run of a game that draws itself
    pytest.importorskip("moviepy")
    pytest.importorskip("matplotlib")
    (programs.folder / "tictactoe.py").write_text(EXAMPLE)
    (programs.folder / "told.py").write_text(TOLD)
    train = ("impala-train", "--run-dir", "run", "--env", "told:Told-v0", "--mask-from", "info")
    code, output = programs.run(*train, *SMALL, "--total-frames", "500")
    assert code == 0, output

    # when
    evaluate = ("impala-eval", "--checkpoint", "run", "--env-module", "told", "--episodes", "2")
    code, output = programs.run(*evaluate, "--video", "videos")

    # then
    assert code == 0, output
    assert len(list((programs.folder / "videos").glob("*.mp4"))) == 2

    # and the report draws the entropy over the moves that are allowed
    assert "Entropy of the target policy" in programs.page_of("run")


def test_a_run_from_before_there_were_masks_goes_on_without_one(programs: Programs) -> None:
    # given a short run, whose checkpoint then has the form of an earlier version
    module = programs.folder / "odd.py"
    module.write_text(ODD.replace("NAME", "action_mist"))
    train = ("impala-train", "--run-dir", "run", "--env", "odd:Odd-v0", *SMALL)
    code, output = programs.run(*train, "--total-frames", "500")
    assert code == 0, output
    module.write_text(ODD.replace("NAME", "action_mask"))
    for file in (programs.folder / "run" / "checkpoints").glob("*.json"):
        facts = json.loads(file.read_text().replace("action_mist", "action_mask"))
        spec = json.loads(facts["spec"]) | {"wire_version": 4}
        del spec["observation"]["mask"], spec["mask_from"], facts["made_by"]
        file.write_text(json.dumps(facts | {"spec": json.dumps(spec)}))

    # when it is resumed, and played
    code, output = programs.run(*train, "--total-frames", "1500", "--resume")
    assert code == 0, output
    code, output = programs.run("impala-eval", "--checkpoint", "run", "--env-module", "odd")

    # then
    assert code == 0, output
    resumed, _ = from_checkpoint(programs.folder / "run")
    assert resumed.observation.mask == ""
    assert resumed.observation.num_features == 8

    # and a new run is told what its mask lacks
    code, output = programs.run("impala-train", "--env", "odd:Odd-v0")
    assert code == 3
    assert "for actions of 6 choices in all; give it one number for each choice" in output


def test_numbers_as_actions_have_no_mask(programs: Programs) -> None:
    code, output = programs.run("impala-train", "--env", "Pendulum-v1", "--mask-from", "info")
    assert code == 3, output
    assert "numbers as actions, of which none can be masked; leave out --mask-from info" in output
