"""The mutable settings of a run, as they are now: a population changes them while it goes on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from impala_redis.common.errors import ConfigError, printable
from impala_redis.common.settings.declaring import MAX_NAME, Setting

# A state has come through at most so many copies.
MOST_GENERATIONS = 2**32

Values = Mapping[str, float]


class Copied(NamedTuple):
    """That a member of a population has gone on with the state of another, and how."""

    values: Values  # of the mutable settings from then on, by their keys
    generation: int  # through how many copies the state has come, this one included
    copied_from: str  # the other member
    copied_unix_s: float  # when, by the server's clock


class Evolving:
    """The mutable settings of a run: as they were typed, and as they are now."""

    def __init__(self, declared: Mapping[str, Setting], typed: Values) -> None:
        """Begins with the values that were typed, by their keys."""
        self._declared, self.typed = declared, dict(typed)
        self.now = dict(typed)
        self.last: Copied | None = None  # None: the settings are as they were typed

    @property
    def generation(self) -> int:
        """Through how many copies the state has come."""
        return self.last.generation if self.last else 0

    def check(self, values: Any) -> dict[str, float]:
        """The values of just these settings, each in its range. Raises ValueError."""
        if not isinstance(values, Mapping) or values.keys() != self.typed.keys():
            raise ValueError(f"values, which are not those of {', '.join(self.typed)}")
        try:
            return {key: self._declared[key].check(values[key]) for key in self.typed}
        except ConfigError as error:
            raise ValueError(f"values: {error}") from error

    def take(self, copied: Copied) -> None:
        """Changes the settings. Raises ValueError: a value is out of its range."""
        self.now = self.check(copied.values)
        self.last = copied

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of them beside its tensors; nothing if they are as typed."""
        if self.last is None:
            return {}
        return {"evolved": {**self.last._asdict(), "values": self.now, "typed": self.typed}}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Goes on with what `facts` gave; a setting that is typed otherwise by now is as typed.

        Raises KeyError, TypeError or ValueError with the name of what it lacks or garbles.
        """
        if (found := facts.get("evolved")) is None:
            return
        if not isinstance(found, dict):
            raise TypeError("evolved")
        copied = Copied(self.check(found["values"]), *_origin(found))
        was_typed = self.check(found["typed"])
        self.now = {
            key: copied.values[key] if self.typed[key] == was_typed[key] else self.typed[key]
            for key in self.typed
        }
        self.last = copied


def _origin(found: Mapping[str, Any]) -> tuple[int, str, float]:
    """Generation, member and time of the last copy. Raises KeyError and ValueError."""
    generation, name = found["generation"], found["copied_from"]
    at = found["copied_unix_s"]
    if type(generation) is not int or not 0 <= generation <= MOST_GENERATIONS:
        raise ValueError(f"generation, which is {printable(generation)[:40]}")
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError("copied_from")
    if type(at) not in (int, float) or not 0 <= at <= 1e12:
        raise ValueError("copied_unix_s")
    return generation, name, float(at)
