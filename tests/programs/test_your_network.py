"""Networks of the user's own, through the real programs: trained, resumed, played and refused."""

import json
import re

import pytest
from full import in_full

from support import ROOT, Programs

pytestmark = pytest.mark.processes

EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "your-network.md").read_text(encoding="utf-8")
QUICK = (
    *("--envs-per-actor", "16", "--batch-size", "16", "--unroll-length", "8"),
    *("--optimizer", "adam", "--learning-rate", "3e-3", "--reduction", "mean"),
    *("--learning-rate-schedule", "constant", "--hidden-sizes", "32", "--discounting", "0.5"),
)
SMALL = ("--envs-per-actor", "4", "--batch-size", "4", "--unroll-length", "8")


@pytest.mark.parametrize(
    ("file", "env", "network", "goal"),
    [
        ("cells.py", "Cells-v0", "CellTransformer", 1.5),
        *in_full(("entities.py", "Flock-v0", "Attention", 1.8)),
    ],
)
def test_the_examples_learn_their_tasks(
    programs: Programs, file: str, env: str, network: str, goal: float
) -> None:
    # when
    path = EXAMPLES / file
    code, output = programs.run(
        *("impala-train", "--env", f"{path}:{env}", "--network", f"{path}:{network}", *QUICK),
        *("--stop-at-return", str(goal), "--total-frames", "60000", "--run-dir", "run"),
    )

    # then it is solved, and it is said how to play it
    assert code == 0, output
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "solved"
    assert f"--network-module {path}" in output


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_networks_on_the_page_train_play_and_go_on(programs: Programs) -> None:
    # given the page's module, and its commands in order, each cut short
    (programs.folder / "my_networks.py").write_text("\n".join(blocks_of("python")))
    commands = [line for block in blocks_of("bash") for line in block.splitlines()]
    assert len(commands) == 4

    # when / then
    for line in commands:
        name, *arguments = line.replace("--episodes 20", "--episodes 2").split()
        if name == "impala-train":
            resumed = "--resume" in arguments
            arguments += ["--total-frames", "400" if resumed else "200", *SMALL]
        code, output = programs.run(name, *arguments)
        assert code == 0, (line, output)


def test_frames_of_atari_reach_an_extractor_written_for_another_library(programs: Programs) -> None:
    # given
    (programs.folder / "theirs.py").write_text("\n".join(blocks_of("python")))
    network = ("--network", "theirs:SmallCnn", "--network-config", '{"features_dim": 24}')

    # when: with an LSTM behind it, and replay
    code, output = programs.run(
        *("impala-train", "--preset", "atari", *network, *SMALL, "--hidden-sizes", "16"),
        *("--lstm-size", "8", "--replay-share", "0.5", "--replay-capacity", "10"),
        *("--total-frames", "160", "--stop-at-return", "none", "--run-dir", "run"),
    )
    assert code == 0, output
    evaluate = ("impala-eval", "--checkpoint", "run", "--episodes", "1", "--max-steps", "10")
    code, output = programs.run(*evaluate, "--network-module", "theirs")

    # then
    assert code == 0, output

    # and nobody imports it unasked
    code, output = programs.run(*evaluate)
    assert code == 2
    assert "if you trust it, add --network-module theirs" in output


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("return observations[:, :1]", "must be [batch, features_dim], here float32[6, 4]"),
        (
            "raise KeyError('colour')",
            "failed in forward: KeyError: 'colour' (broken.py, line 11",
        ),
    ],
)
def test_a_broken_network_is_refused_before_the_run_is_taken(
    programs: Programs, redis_url: str, run_name: str, line: str, why: str
) -> None:
    # given
    (programs.folder / "broken.py").write_text(
        "from torch import nn\n\n\nclass Broken(nn.Module):\n"
        "    def __init__(self, observation_space):\n        super().__init__()\n"
        "        self.features_dim = 4\n        self.layer = nn.Linear(4, 4)\n\n"
        f"    def forward(self, observations):\n        {line}\n"
    )

    # when
    code, output = programs.run(
        *("impala-learner", "--redis-url", redis_url, "--run", run_name, "--env", "CartPole-v1"),
        *("--network", "broken:Broken", "--run-dir", "run"),
    )

    # then
    assert code == 2
    assert why in output.splitlines()[-1]
    assert not list((programs.folder / "run").glob("checkpoints/*"))
