"""Which run, where, with which settings."""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.errors import ConfigError
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.workers.crew import settings_for_the_learner
from impala_redis.workers.plan import Plan, make_plan


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(
    overrides: Mapping[str, Any] | None = None,
    *,
    run: str | None = None,
    run_dir: str | None = None,
    preset: str | None = None,
    config: str | None = None,
    resume: bool = False,
    default_preset: str | None = None,
    init_from: str | None = None,
) -> Plan:
    return make_plan(
        run=run,
        run_dir=Path(run_dir) if run_dir else None,
        preset_name=preset,
        config_file=Path(config) if config else None,
        resume=resume,
        overrides=overrides or {},
        default_preset=default_preset,
        init_from=init_from,
    )


def start(planned: Plan) -> None:
    """Does what a learner does first with a plan."""
    planned.directory.prepare("learner", resume=False)
    planned.directory.write_config(planned.run, planned.preset, planned.config)


def test_the_presets_name_is_the_runs_and_the_directorys() -> None:
    planned = plan(preset="cartpole")
    assert planned.run == "cartpole"
    assert planned.directory.path == Path("runs/cartpole")
    assert planned.config.training.stop_at_return == 475.0


def test_an_environment_without_a_preset_gives_its_name() -> None:
    assert plan({"env": "ALE/Pong-v5"}).run == "ale-pong-v5"
    Path("c.toml").write_text('env = "Acrobot-v1"')
    assert plan(config="c.toml").run == "acrobot-v1"


def test_the_next_run_of_a_name_gets_a_directory_of_its_own() -> None:
    for expected in ("runs/cartpole", "runs/cartpole-2", "runs/cartpole-3"):
        planned = plan(preset="cartpole")
        assert planned.directory.path == Path(expected)
        start(planned)


def test_resume_takes_the_newest_directory_of_the_name() -> None:
    for seed in (1, 2):
        start(plan({"seed": seed}, preset="cartpole"))
    planned = plan(preset="cartpole", resume=True)
    assert planned.directory.path == Path("runs/cartpole-2")
    assert planned.config.training.seed == 2


def test_resume_without_anything_there_plans_a_new_run() -> None:
    planned = plan(preset="cartpole", resume=True)
    assert planned.directory.path == Path("runs/cartpole")
    assert not planned.directory.holds_a_run


def test_a_named_directory_is_taken_as_it_is() -> None:
    start(plan(preset="cartpole", run_dir="here"))
    assert plan(preset="cartpole", run_dir="here").directory.path == Path("here")


def test_a_resumed_directory_gives_name_preset_and_settings() -> None:
    # given a run with a name and a setting of its own
    start(plan({"seed": 7}, preset="acrobot", run="mine", run_dir="here"))

    # when it is resumed by its directory alone
    planned = plan({"total_frames": 5}, run_dir="here", resume=True, default_preset="cartpole")

    # then all of it is known again, and what is given now outranks it
    assert (planned.run, planned.preset) == ("mine", "acrobot")
    assert planned.config.environment.env == "Acrobot-v1"
    assert planned.config.training.seed == 7
    assert planned.config.training.total_frames == 5


def test_the_file_outranks_the_preset_and_the_command_line_the_file() -> None:
    Path("c.toml").write_text("seed = 3\nbatch_size = 8\n")
    planned = plan({"batch_size": 9}, preset="cartpole", config="c.toml")
    assert planned.config.training.seed == 3
    assert planned.config.training.batch_size == 9


def test_settings_must_agree_in_the_end_and_not_in_each_of_their_sources() -> None:
    # given a preset whose rewards are not clipped, one of several tasks, and files
    Path("popart.toml").write_text("popart = true")
    Path("stop.toml").write_text("stop_at_score = 0.5")
    a_task = [{"env": "CartPole-v0"}]

    # then
    assert plan({"popart": True}, preset="cartpole").config.loss.popart
    assert plan({"stop_at_score": 0.5}, preset="minigrid-5").config.training.stop_at_score == 0.5
    typed = plan({"env": "CartPole-v1", "reward_clipping": "none"}, config="popart.toml")
    assert typed.config.loss.popart
    scored = plan({"tasks": a_task}, config="stop.toml")
    assert scored.config.training.stop_at_score == 0.5

    # and a run that is resumed has agreed before
    start(scored)
    resumed = plan({"stop_at_score": 0.9}, resume=True, run=scored.run)
    assert resumed.config.training.stop_at_score == 0.9
    with pytest.raises(ConfigError, match="popart learns from rewards as they are"):
        plan({"popart": True}, preset="atari")


def test_the_default_preset_is_for_those_who_name_nothing() -> None:
    assert plan(default_preset="cartpole").preset == "cartpole"
    assert plan(default_preset="cartpole", resume=True).preset == "cartpole"
    assert plan({"env": "Acrobot-v1"}, default_preset="cartpole").preset is None


def test_nothing_named_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="--preset NAME or --env ID"):
        plan(run="x")


@pytest.mark.parametrize("name", ["a/b", "", "x" * 65, "a b", "..\n"])
def test_what_cannot_name_a_run_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="run"):
        plan(run=name or "{}", preset="cartpole")


def test_one_program_at_a_time_works_in_a_directory(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "run")
    first.prepare("learner", resume=False)
    with pytest.raises(Exception, match="another learner works in"):
        second.prepare("learner", resume=True)
    second.prepare("train", resume=True)  # a train and its learner share it


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    # given Lustre without `-o flock`, or one of its kin
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)

    # when
    directory = RunDirectory(tmp_path / "run")
    directory.prepare("learner", resume=False)

    # then
    (line,) = caplog.messages
    assert "knows no locks" in line
    assert os.strerror(number) in line
    assert "start no second learner" in line
    directory.write_result({"status": "finished"})
    assert directory.read_result() == {"status": "finished"}


def test_a_network_is_chosen_by_the_user_a_file_the_preset_or_the_run_that_is_resumed() -> None:
    # given
    Path("network.toml").write_text('network = "mlp"')
    Path("other.toml").write_text("seed = 4")
    pong = {"env": "ALE/Pong-v5"}

    # when / then nobody has, in these
    nobody = plan(pong)
    assert not nobody.chose_network
    assert not plan(pong, config="other.toml").chose_network
    assert not plan(pong, preset="cartpole").chose_network
    assert not plan(default_preset="cartpole").chose_network

    # but somebody in these, also by the name of the default
    assert plan(pong | {"network": "mlp"}).chose_network
    assert plan(pong, config="network.toml").chose_network
    assert plan(preset="atari").chose_network
    start(nobody)
    assert plan(run="ale-pong-v5", resume=True).chose_network


def test_a_network_that_nobody_has_chosen_is_not_handed_on_as_chosen() -> None:
    for one in settings_for_the_learner(plan({"env": "CartPole-v1"})):
        assert not one.startswith("--network=")
    chosen = plan({"network": "mlp", "env": "CartPole-v1"})
    assert "--network=mlp" in settings_for_the_learner(chosen)


def test_the_run_whose_weights_are_taken_is_the_same_from_any_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    folder = Path("runs/first").absolute()
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(Path.cwd()))

    # then a name stays one
    for typed in ("runs/first", "./runs/first", "~/runs/first", str(folder)):
        found = plan(preset="cartpole", init_from=typed).init_from
        assert found is not None and Path(found) == folder
        assert Path(found).is_absolute()
    assert plan(preset="cartpole", init_from="first").init_from == "first"
    assert plan(preset="cartpole", init_from="nowhere").init_from == "nowhere"
