"""A run that begins with another's weights, and weights that are played elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import save_run

from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import read_saved_spec
from impala_redis.workers.beginning import begun_from
from impala_redis.workers.evaluator import report_in_words, to_be_played
from support import Programs


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_averaged_weights_are_taken_and_nothing_else_is(tmp_path: Path, engine: str) -> None:
    # given a run that has trained for a while
    spec = save_run(tmp_path / "run", "CartPole-v1", updates=9)
    config = Config()
    learner = Learner(config, make_engine(engine, "cpu", 1, spec, config))
    before, _ = learner.state()

    # when
    begun_from(spec, str(tmp_path / "run")).begin(learner)

    # then
    weights = from_checkpoint(tmp_path / "run")[1].weights
    after, facts = learner.state()
    for name, values in weights.items():
        assert np.array_equal(after[f"model.{name}"], values)
        assert np.array_equal(after[f"averaged.{name}"], values)
    for name in before:
        if not name.startswith(("model.", "averaged.")):
            assert np.array_equal(after[name], before[name]), name
    counts = ("version", "updates", "frames", "episodes", "optimizer_steps")
    assert {name: facts[name] for name in counts} == dict.fromkeys(counts, 0)


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({}, {"hidden_sizes": (8,)}, r"hidden_sizes is \(8,\) here and \(64, 64\) there"),
        ({"lstm_size": 8}, {}, "lstm_size is 0 here and 8 there"),
        ({"frame_stack": 2}, {}, "frame_stack is 1 here and 2 there"),
        (
            {"normalize_observations": True},
            {},
            "normalize_observations is False here and True there",
        ),
        (
            {"env": "Acrobot-v1"},
            {},
            r"the observation is float32\[4\] here and float32\[6\] there; the action is one of 2 "
            "choices here and one of 3 choices there",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_words(
    tmp_path: Path, there: dict[str, Any], here: dict[str, Any], words: str
) -> None:
    save_run(tmp_path / "other", **({"env": "CartPole-v1"} | there))
    spec = save_run(tmp_path / "mine", **({"env": "CartPole-v1"} | here))
    with pytest.raises(SpecMismatch, match=words) as caught:
        begun_from(spec, str(tmp_path / "other"))
    assert "Spec(" not in str(caught.value)


def test_weights_of_another_environment_keep_the_scale_of_their_inputs(tmp_path: Path) -> None:
    # given a run whose bytes were divided by another number than this one's would be
    other = save_run(tmp_path / "other", "ALE/Pong-v5", network="shallow", frame_stack=4)
    path = next((tmp_path / "other" / "checkpoints").glob("*.json"))
    facts = json.loads(path.read_text())
    facts["spec"] = facts["spec"].replace('"scale": [255]', '"scale": [99]')
    path.write_text(json.dumps(facts))

    # then
    assert other.observation.scale == (255,)
    assert read_saved_spec(facts, path).observation.scale == (99,)
    assert begun_from(other, str(path)).spec.observation.scale == (99,)


@pytest.mark.processes
def test_a_run_that_begins_with_anothers_weights_solves_its_task_in_half_the_frames(
    programs: Programs,
) -> None:
    # given
    train = ("impala-train", "--preset", "cartpole", "--run")
    code, output = programs.run(*train, "first", "--seed", "1")
    assert code == 0, output

    # when; one run in twenty forgets for a while what it began with, so there may be another
    begin = ("--init-from", "first", "--learning-rate", "0.0003")
    runs = programs.folder / "runs"
    first = json.loads((runs / "first" / "result.json").read_text())
    for seed in (2, 3):
        code, output = programs.run(*train, "second", *begin, "--seed", str(seed))
        assert code == 0, output
        where = max(runs.glob("second*"), key=lambda path: path.stat().st_mtime)
        second = json.loads((where / "result.json").read_text())
        if second["frames"] <= first["frames"] / 2:
            break

    # then
    assert (first["status"], second["status"]) == ("solved", "solved")
    assert second["frames"] <= first["frames"] / 2
    assert "begins with the weights in" in (where / "logs" / "learner.log").read_text()

    # and its files say where it came from, and go on saying so
    assert '\ninit_from = "first"\n' in (where / "config.toml").read_text()
    resume = ("--resume", "--run-dir", f"runs/{where.name}", "--init-from", "elsewhere")
    code, output = programs.run("impala-train", *resume)
    assert code == 0, output
    assert f"elsewhere is left out: runs/{where.name} goes on from its own" in output
    assert '\ninit_from = "first"\n' in (where / "config.toml").read_text()


@pytest.mark.processes
def test_a_run_of_another_network_is_no_beginning(programs: Programs) -> None:
    # given
    save_run(programs.folder / "runs" / "other", "Acrobot-v1")

    # when / then
    begin = ("impala-train", "--preset", "cartpole", "--init-from")
    code, output = programs.run(*begin, "other")
    assert code == 9, output
    assert "the weights of other do not fit this run: the observation is float32[4] here" in output
    code, output = programs.run(*begin, "nowhere")
    assert code == 11, output
    assert "there is no run directory or checkpoint at nowhere" in output


@pytest.mark.processes
@pytest.mark.parametrize(
    ("run", "other", "settings"),
    [
        ("CartPole-v1", "CartPole-v0", {"lstm_size": 8, "frame_stack": 2}),
        ("ALE/Pong-v5", "ALE/Boxing-v5", {"network": "shallow", "frame_stack": 4}),
    ],
    ids=["memory and stack", "Atari"],
)
def test_weights_are_played_in_another_environment(
    programs: Programs, run: str, other: str, settings: dict[str, Any]
) -> None:
    # given
    save_run(programs.folder / "run", run, updates=3, **settings)
    play = ("impala-eval", "--checkpoint", "run", "--episodes", "2", "--max-steps", "30")

    # when
    code, output = programs.run(*play, "--env", other, "--json")

    # then
    if run == "CartPole-v1":
        assert code == 0, output
        report = json.loads(output.splitlines()[-1])
        assert (report["env"], report["trained_in"]) == (other, run)
        assert report["weights_version"] == 3
        assert f"{other}, 2 episodes, greedy, seed 0, weights version 3 of {run}" in (
            report_in_words(report)
        )
    else:  # this game has more actions
        assert code == 3, output
        assert "the action is one of 18 choices here and one of 6 choices there" in output


@pytest.mark.processes
def test_an_environment_of_a_file_is_played_once_it_is_typed(programs: Programs) -> None:
    # given an easy CartPole in a file of its own
    (programs.folder / "easy.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Easy-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv', "
        "max_episode_steps=7)\n"
    )
    save_run(programs.folder / "run", "CartPole-v1")

    # when
    play = ("impala-eval", "--checkpoint", "run", "--episodes", "2", "--env")
    code, output = programs.run(*play, "./easy.py:Easy-v0")

    # then
    assert code == 0, output
    assert "easy:Easy-v0, 2 episodes" in output
    assert "mean length 7.0" in output
    code, output = programs.run(*play, "Pendulum-v1")
    assert code == 3, output
    assert "Pendulum-v1 does not fit the run's weights: the observation is float32[3]" in output


@pytest.mark.processes
def test_the_runs_own_id_is_played_as_registered_and_only_if_it_is_typed(
    programs: Programs,
) -> None:
    # given a run with a time limit of its own
    spec = save_run(programs.folder / "run", "CartPole-v1", max_episode_steps=5)
    play = ("impala-eval", "--episodes", "1", "--checkpoint", "run")

    # then a variable for what is trained changes nothing
    code, output = programs.run(*play, IMPALA_ENV="Pendulum-v1")
    assert code == 0, output
    assert "CartPole-v1, 1 episodes" in output
    assert "mean length 5.0" in output
    code, output = programs.run(*play, "--env", "CartPole-v1")
    assert code == 0, output
    assert "mean length 5.0" not in output

    # and a file is the one that is typed, though the run has the same id
    spec = replace(spec, env="easy:Easy-v0", wrapper=("easy:Wrap",))
    played = to_be_played(spec, "there/easy.py:Easy-v0", (), ())
    assert (played.env, played.wrapper) == ("there/easy.py:Easy-v0", ())
    with pytest.raises(ConfigError, match="add --env-module easy"):
        to_be_played(spec, None, (), ())
