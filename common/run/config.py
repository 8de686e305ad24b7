"""All settings of a run together: what a user asks for, checked.

Precedence, lowest first: the defaults (`common.run.groups`), a preset, a TOML file, then
environment variables and the command line (`workers/options.py` turns every setting into an
option).
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.groups import (
    EnvironmentSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    TrainingSettings,
    TransportSettings,
)
from impala_redis.common.settings.declaring import MAX_TEXT, Setting, declared_in
from impala_redis.common.settings.evolving import Evolving
from impala_redis.common.settings.field_names import our_name
from impala_redis.common.tasks.listing import spelled_out
from impala_redis.common.tasks.worlds import worlds_of


@dataclass(frozen=True)
class Config:
    """All settings of a run, by concern. Raises ConfigError for a value out of its range."""

    environment: EnvironmentSettings = field(default=EnvironmentSettings())
    model: ModelSettings = field(default=ModelSettings())
    training: TrainingSettings = field(default=TrainingSettings())
    loss: LossSettings = field(default=LossSettings())
    optimizer: OptimizerSettings = field(default=OptimizerSettings())
    transport: TransportSettings = field(default=TransportSettings())

    def __post_init__(self) -> None:
        for item in settings():
            item.check(getattr(getattr(self, item.group), item.attribute))
        self._check_together()

    def _check_together(self) -> None:
        """Raises ConfigError: two settings contradict each other."""
        loss, training, transport = self.loss, self.training, self.transport
        where = self.environment
        worlds_of(where.env, where.variant, where.tasks)
        if len(where.env) > MAX_TEXT:
            raise ConfigError(f"env must be text of at most {MAX_TEXT} characters")
        if (loss.clip_rho or float("inf")) < (loss.clip_c or float("inf")):
            raise ConfigError(
                f"clip_rho ({loss.clip_rho}) must be at least clip_c ({loss.clip_c}), as the "
                "paper's convergence proof needs; raise clip_rho or lower clip_c"
            )
        if loss.returns == "monte_carlo" and (loss.correction == "vtrace" or loss.lambda_ != 1.0):
            raise ConfigError(
                "monte_carlo learns from whole returns, but V-trace's traces and a lambda below 1 "
                "replace a part of them by values; set correction to none or one_step, and lambda "
                "to 1"
            )
        if training.stop_at_score is not None and not where.tasks:
            raise ConfigError(
                f"stop_at_score ({training.stop_at_score:g}) needs tasks, which alone have scores; "
                "give --tasks FILE, or stop_at_return instead"
            )
        if training.replay_share > 0 and self.replayed_columns == 0:
            raise ConfigError(
                f"a replay_share of {training.replay_share} of a batch_size of "
                f"{training.batch_size} is not one trajectory; raise one of them"
            )
        if training.replay_capacity < self.replayed_columns:
            raise ConfigError(
                f"replay_capacity ({training.replay_capacity}) is less than the "
                f"{self.replayed_columns} trajectories that a batch draws; raise it"
            )
        self._check_sizes_of_rewards()
        bound, forced = transport.max_policy_lag, transport.force_lag
        if bound is not None and 0 < forced >= bound:
            raise ConfigError(
                f"max_policy_lag ({bound}) would reject all that is played with a force_lag of "
                f"{forced}; set it above {forced}, or to none"
            )

    def _check_sizes_of_rewards(self) -> None:
        """Raises ConfigError: rewards are brought to a common size in two ways, or in none."""
        loss, tasks = self.loss, self.environment.tasks
        if loss.normalize_rewards and len(tasks) > 1:
            raise ConfigError(
                "normalize_rewards divides the rewards of all tasks by one number; turn it off, "
                "and give --popart --reward-clipping none where their rewards differ in size"
            )
        if loss.popart and loss.reward_clipping != "none":
            raise ConfigError(
                "popart learns from rewards as they are, but reward_clipping is "
                f"{loss.reward_clipping}; give --reward-clipping none"
            )
        if loss.popart and loss.normalize_rewards:
            raise ConfigError(
                "popart and normalize_rewards both bring rewards to a common size; turn one of "
                "them off: --no-normalize-rewards or --no-popart"
            )
        scales = [loss.reward_scale, *(task.reward_scale for task in tasks)]
        if loss.popart and 0 in scales:
            raise ConfigError(
                "popart divides by the size of rewards, and a reward_scale of 0 leaves none; give "
                "another one, or turn popart off"
            )

    @property
    def replayed_columns(self) -> int:
        """Trajectories of a batch that come from the replay memory."""
        batch_size = self.training.batch_size
        return min(round(batch_size * self.training.replay_share), batch_size - 1)

    def values(self) -> dict[str, Any]:
        """Every setting by its key, in declaration order."""
        return {item.key: getattr(getattr(self, item.group), item.attribute) for item in settings()}

    def evolving(self) -> Evolving:
        """The mutable settings that have an effect, as they stand here."""
        unused = ("rmsprop_epsilon",) if self.optimizer.optimizer == "adam" else ()
        items = [item for item in settings() if item.mutable and item.key not in unused]
        values = self.values()
        return Evolving({i.key: i for i in items}, {i.key: values[i.key] for i in items})

    def replace(self, *layers: Mapping[str, Any]) -> "Config":
        """This config with some settings changed; a layer outranks those before it.

        What gives the environment gives the tasks, and the other way round. Raises ConfigError: a
        key is unknown, a value is none of its setting's, or two do not agree in the end.
        """
        changed: dict[str, dict[str, Any]] = {}
        for key, value in (item for values in layers for item in spelled_out(values).items()):
            item = find_setting(key)
            changed.setdefault(item.group, {})[item.attribute] = item.check(value)
        groups = {
            group: dataclasses.replace(getattr(self, group), **fields)
            for group, fields in changed.items()
        }
        return dataclasses.replace(self, **groups)


def settings() -> tuple[Setting, ...]:
    """Every setting, in declaration order."""
    return _SETTINGS


def find_setting(key: str) -> Setting:
    """The setting of that key, in `-` or `_` spelling. Raises ConfigError, with a near name."""
    name = key.replace("-", "_")
    for item in settings():
        if item.key == name:
            return item
    keys = [item.key for item in settings()]
    near = our_name(key) if our_name(key) in keys else None
    near = near or next(iter(difflib.get_close_matches(name, keys, n=1)), None)
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(f"there is no setting {key!r}{hint}")


_SETTINGS = tuple(declared_in(Config))
