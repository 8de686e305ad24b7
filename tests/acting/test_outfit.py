"""What an actor plays with is what the run says, and of modules that its user trusts alone."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_modules import paying_run
from saved_runs import save_run

from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.workers import actor
from impala_redis.workers.absence import LearnerAbsence
from impala_redis.workers.actor import ActorProgram
from impala_redis.workers.joining import OpenRun
from impala_redis.workers.outfit import Outfit
from impala_redis.workers.watchdog import Watchdog

NETWORK = """
from torch import nn


class Net(nn.Linear):
    features_dim = 3

    def __init__(self, observation_space):
        super().__init__(4, 3)
"""


def test_a_network_of_a_module_that_only_the_run_names_is_not_imported(own_folder: Path) -> None:
    # given
    (own_folder / "theirs.py").write_text(NETWORK)
    spec = save_run(own_folder / "run", "CartPole-v1", network="theirs:Net")
    del sys.modules["theirs"]

    # when
    for trusted in ((), ("other",)):
        with pytest.raises(ConfigError, match=r"add --network-module theirs$"):
            Outfit(("theirs",), trusted, envs=1).make_actor(spec, "a", 1, 0)

    # then
    assert "theirs" not in sys.modules
    acting = Outfit((), ("theirs",), envs=1).make_actor(spec, "a", 1, 0)
    acting.close()
    assert "theirs" in sys.modules


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"env": "x:Y-v0"}, "'x', which nobody.*add --env-module x$"),
        ({"wrapper": ("x:Y",)}, "'x', which nobody.*add --env-module x$"),
        (
            {"env": "HalfCheetah-v5", "env_kwargs": '{"xml_file": "/x"}'},
            "'xml_file', which may choose a file.*add --env-module HalfCheetah-v5$",
        ),
    ],
)
def test_what_a_run_alone_chooses_for_its_environments_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    config = Config().replace({"env": "CartPole-v1"})
    spec = make_spec("r", config, ObservationSpec((4,), "float32"), discrete(2))
    with pytest.raises(ConfigError, match=why):
        Outfit(("other",), ("x",)).make_environment(replace(spec, **changes))


@pytest.mark.parametrize("env_processes", [0, 2])
def test_an_actors_environments_are_the_variant_that_the_run_plays(
    own_folder: Path, env_processes: int
) -> None:
    # given
    outfit = Outfit(("pays",), envs=2, env_processes=env_processes)
    environment = outfit.make_environment(paying_run(own_folder))

    # when
    seen = np.array(environment.reset(0))
    steps = [environment.step(np.zeros(2, np.int64)) for _ in range(5)]
    environment.close()

    # then they have the run's size, its wrapper, which pays twice, and its time limit
    assert seen.tolist() == [[3.0, 0.0]] * 2
    assert [step.rewards.tolist() for step in steps] == [[6.0, 6.0]] * 4 + [[0.0, 0.0]]
    assert [step.truncated.tolist() for step in steps] == [[t == 3] * 2 for t in range(5)]


class NoCourier:
    """Sends nothing."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def start(self, weights: VersionedWeights) -> None:
        pass


class NoSignals:
    """Is never stopped."""

    def take_signals(self) -> None:
        pass


class NoLink:
    """Leads to no server."""

    run = "paying"


def test_a_late_actor_tells_its_environments_how_far_the_training_is_before_they_begin(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run three quarters of which are done
    monkeypatch.setattr(actor, "Courier", NoCourier)
    spec = paying_run(own_folder)
    weights = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    run = OpenRun(spec, "digest", VersionedWeights(8, weights, progress=0.75), join=0)
    link: Any = NoLink()
    stop: Any = NoSignals()
    absence = LearnerAbsence("paying", 600.0, ends=False)
    program = ActorProgram(link, "a", Outfit(("pays",), envs=2), Watchdog(60.0), absence, stop)

    # when
    acting, _ = program._join(run)
    block = acting.unroll()
    acting.close()

    # then its first episodes began with that
    assert block.trajectory.observations[0].tolist() == [[3.0, 0.75]] * 2
