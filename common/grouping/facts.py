"""What the first learner of a group tells the others before they begin, and each one's part."""

import json
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import Config
from impala_redis.common.run.config_file import config_in, to_toml
from impala_redis.common.run.spec import RunSpec


class Facts(NamedTuple):
    """The run as its first learner has opened it."""

    config: Config
    spec: RunSpec
    holder: str  # of the run's lease

    def packed(self) -> bytes:
        """All of it as bytes; `facts_in` reads them."""
        config, spec = to_toml(self.config), self.spec.to_json()
        return json.dumps({"config": config, "spec": spec, "holder": self.holder}).encode()


def facts_in(data: bytes) -> Facts:
    """What `packed` gave. Raises ConfigError or SpecMismatch: it was another version's."""
    try:
        found = json.loads(data)
        config, spec, holder = (str(found[name]) for name in Facts._fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            "the group's first learner is of another version; install one version everywhere"
        ) from error
    return Facts(config_in(config.encode()), RunSpec.from_json(spec), holder)


def part_of(config: Config, ranks: int) -> Config:
    """The settings of one of `ranks` learners: its part of a batch, and of the replay memory.

    Raises ConfigError: they cannot be divided so.
    """
    if ranks == 1:
        return config
    training = config.training
    if training.batch_size % ranks:
        raise ConfigError(
            f"a batch_size of {training.batch_size} cannot be divided among {ranks} learners; give "
            f"--batch-size a multiple of {ranks}"
        )
    # Where it divides these, each part's share comes to as many, rounded.
    if config.replayed_columns % ranks:
        raise ConfigError(
            f"the {config.replayed_columns} replayed trajectories of a batch cannot be divided "
            f"among {ranks} learners; change --replay-share"
        )
    return config.replace(
        {
            "batch_size": training.batch_size // ranks,
            "replay_capacity": -(-training.replay_capacity // ranks),
        }
    )
