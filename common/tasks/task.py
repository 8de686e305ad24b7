"""One task of a run: an environment, its share of all that is played, and how it is scored."""

from dataclasses import dataclass

from impala_redis.common.errors import ConfigError
from impala_redis.common.settings.declaring import LARGEST, MAX_TEXT, is_name
from impala_redis.common.settings.env_id import FORMS, names_one
from impala_redis.common.settings.json_object import EMPTY

# The most tasks of one run: the 57 games of the Atari benchmark have room.
MOST_TASKS = 128
# The largest share: a schedule has as many places as all shares together.
MOST_SHARE = 32


@dataclass(frozen=True)
class Task:
    """One task. Raises ConfigError: a value is out of its range."""

    name: str  # in figures and tables; 1 to 64 printable characters without blanks, ',' and ':'
    env: str  # Id, module:Id, or path/to/module.py:Id
    share: int = 1  # 1 to 32: of the environments, beside the other tasks' shares
    random: float = 0.0  # the return of a random policy, whose score is 0
    reference: float = 1.0  # the return whose score is 1: a person's, or an expert's
    reward_scale: float = 1.0  # rewards are multiplied by it in the learner, and by the run's
    env_kwargs: str = EMPTY  # arguments of the constructor, over those of the run

    def __post_init__(self) -> None:
        if not is_name(self.name) or set(self.name) & set(" ,:"):
            raise ConfigError(
                f"a task has the name {repr(self.name)[:80]}; give it 1 to 64 printable "
                "characters without blanks, commas and colons"
            )
        if not names_one(self.env) or len(self.env) > MAX_TEXT:
            raise ConfigError(f"the task {self.name} has env {self.env[:80]!r}, not {FORMS}")
        if not 1 <= self.share <= MOST_SHARE:
            self._refuse("share", self.share, f"a whole number from 1 to {MOST_SHARE}")
        for key in ("random", "reference", "reward_scale"):
            number = getattr(self, key)
            if not abs(number) <= LARGEST:  # true of a NaN, too
                self._refuse(key, number, f"a number up to {LARGEST:g}")
        if self.reference == self.random:
            raise ConfigError(
                f"the task {self.name} has random = reference = {self.random:g}, between which no "
                "score can lie; give the returns of a random policy and of a good one"
            )

    @property
    def fitting(self) -> str:
        """What data and weights depend on, in words."""
        arguments = f" with {self.env_kwargs}" if self.env_kwargs != EMPTY else ""
        return f"{self.name} in {self.env}{arguments}"

    def _refuse(self, key: str, value: object, range_: str) -> None:
        raise ConfigError(f"the task {self.name} has {key} = {value!r}, not {range_}")
