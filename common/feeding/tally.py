"""The figures of the updates between two records: means, policy lag, actors, episodes. Pure."""

import math
import operator
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from impala_redis.common.blocks.trajectory import Block, Episode
from impala_redis.common.errors import MessageRefused, printable
from impala_redis.common.records.figure import EPISODE_INFO, Reduction
from impala_redis.common.records.figures import reduction_of
from impala_redis.common.records.refusals import REFUSALS

if TYPE_CHECKING:
    from impala_redis.common.feeding.batch import Batch

# Creation times are kept for this many of the newest versions.
VERSIONS = 65_536
# A record lists at most this many returns one by one.
MOST_RETURNS = 20
# Refusals are counted for this many actors by name: the names come from whoever can push.
MOST_NAMES = 64
UNREADABLE, OTHERS = "(no name to read)", "(others)"
# A learner makes figures of at most this many infos: their names come from environments.
MOST_INFOS = 64

_JOINTS: dict[Reduction, Callable[[float, float], float]] = {
    "mean": operator.add,
    "min": min,
    "max": max,
}


class Means:
    """Figures of updates until `take`, each reduced as its row in the table of figures says."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}  # sums, or extremes
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Counts one value of each figure that has a finite one."""
        for name, value in figures.items():
            if not math.isfinite(value):
                continue
            before = self._values.get(name)
            if before is not None:
                value = _JOINTS[reduction_of(name)](before, value)
            self._values[name] = value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means and extremes since the last call."""
        means = {
            name: value / self._counts[name] if reduction_of(name) == "mean" else value
            for name, value in self._values.items()
        }
        self._values, self._counts = {}, {}
        return means


class Arrivals(NamedTuple):
    """Columns of the blocks that were claimed, since the start."""

    came: int = 0
    refused: int = 0
    stale: int = 0


class Refusals:
    """Counts what comes and is not trained on: whole blocks in columns, and single columns.

    The columns of a block that cannot be read are taken to be as many as an actor's environments.
    """

    def __init__(self, envs_per_actor: int) -> None:
        self._envs_per_actor = envs_per_actor
        self._came = self._stale = self.episodes = 0
        # All kinds from the start: another thread reads while this one counts.
        self._refused = dict.fromkeys(REFUSALS, 0)
        self.last = ""  # why the last one was refused
        self._by_actor: Counter[str] = Counter()  # columns
        self._counting = threading.Lock()  # blocks on one thread, updates on another

    def note_block(self, block: Block, stale: bool) -> None:
        """Counts a block that could be read, and what was left out of it."""
        self._came += block.num_envs
        self._stale += block.num_envs - sum(u.columns for u in block.unfit) if stale else 0
        self.episodes += block.episodes_left_out
        for unfit in block.unfit:
            self._count(unfit.kind, unfit.columns, block.origin.actor, unfit.explanation)

    def note_refusal(self, error: MessageRefused) -> None:
        """Counts a block that was refused as a whole."""
        self._came += self._envs_per_actor
        self._count(error.kind, self._envs_per_actor, error.actor, str(error))

    def note_update(self, batch: "Batch") -> None:
        """Counts the columns that an update left out."""
        for part in batch.unfit:
            words, columns = REFUSALS["refused_updates"], part.columns
            self._count("updates", columns.stop - columns.start, part.actor[0], words)

    def _count(self, kind: str, columns: int, actor: str, why: str) -> None:
        name = actor or UNREADABLE
        with self._counting:
            self._refused[f"refused_{kind}"] += columns
            self.last = why
            known = name in self._by_actor or len(self._by_actor) < MOST_NAMES
            self._by_actor[name if known else OTHERS] += columns

    @property
    def most_of(self) -> str:
        """Whose columns were refused most often; empty when none were."""
        # Copied at once: another thread counts.
        return max(dict(self._by_actor).items(), key=lambda item: item[1], default=("", 0))[0]

    @property
    def arrivals(self) -> Arrivals:
        """The counts up to now."""
        return Arrivals(self._came, sum(self._refused.values()), self._stale)

    def figures(self) -> dict[str, float]:
        """The figures of a record that are counters."""
        return {
            "columns_refused": sum(self._refused.values()),
            "columns_stale": self._stale,
            "episodes_left_out": self.episodes,
            **self._refused,
        }

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {f"columns_{name}": count for name, count in self.arrivals._asdict().items()}

    def summary(self) -> dict[str, Any] | None:
        """What a run's result says of them; None when everything was fit and new enough."""
        came, refused, stale = self.arrivals
        if not (refused or stale):
            return None
        return {
            "columns_came": came,
            "columns_refused": refused,
            "columns_stale": stale,
            "refused_share": round(refused / came, 6),
            "stale_share": round(stale / came, 6),
            "why": {name: count for name, count in self._refused.items() if count},
            "by_actor": dict(Counter(dict(self._by_actor)).most_common()),
            "last": printable(self.last),
        }


class Tally:
    """Counts what batches bring with them, until `take`."""

    def __init__(self) -> None:
        self._made_s = np.full(VERSIONS, np.nan)  # when, by version modulo VERSIONS
        self._info_names: set[str] = set()
        self._clear()

    def _clear(self) -> None:
        self._lags: list[int] = []
        self._lags_s: list[float] = []
        self._replay_lags: list[int] = []
        self._rates: list[float] = []
        self._unrolls_s: list[float] = []
        self._actors: set[str] = set()
        self._episodes: list[Episode] = []

    def made(self, version: int, now_s: float) -> None:
        """Notes that a weights version was made at that moment of a monotonic clock."""
        self._made_s[version % VERSIONS] = now_s

    def note(self, batch: "Batch", version: int, now_s: float) -> None:
        """Counts a batch on which `version` of the weights was about to be updated."""
        versions = np.asarray(batch.versions)
        lags = version - versions
        fresh = slice(batch.replayed, None)
        self._lags += lags[fresh].tolist()
        self._replay_lags += lags[: batch.replayed].tolist()
        known = (lags >= 0) & (lags < VERSIONS)
        ages_s = np.where(known, now_s - self._made_s[versions % VERSIONS], np.nan)[fresh]
        self._lags_s += ages_s[np.isfinite(ages_s)].tolist()
        for actor, frames, unroll_s in batch.played:
            self._actors.add(actor)
            self._unrolls_s.append(unroll_s)
            if unroll_s > 0:
                self._rates.append(frames / unroll_s)
        self._episodes += batch.episodes

    def take(self) -> dict[str, Any]:
        """The figures since the last call, without those that have no value."""
        returns = [episode.episode_return for episode in self._episodes]
        columns = len(self._lags) + len(self._replay_lags)
        figures = {
            **_statistics("policy_lag", self._lags, mean=np.mean, p95=_p95, max=np.max),
            **_statistics("policy_lag_s", self._lags_s, mean=np.mean, p95=_p95, max=np.max),
            **_statistics("replay_lag", self._replay_lags, mean=np.mean),
            **_statistics("actor_frames_per_s", self._rates, mean=np.mean, min=np.min, max=np.max),
            **_statistics("episode_return", returns, mean=np.mean, min=np.min, max=np.max),
            **_statistics("episode_length", [e.length for e in self._episodes], mean=np.mean),
        }
        if self._replay_lags:
            figures["replay_share"] = len(self._replay_lags) / columns
        if self._unrolls_s:
            figures["unroll_s"] = float(np.mean(self._unrolls_s))
            figures["actors"] = len(self._actors)
        figures |= self._info_figures()
        if returns:
            figures["episode_returns"] = returns[:: -(-len(returns) // MOST_RETURNS)]
        self._clear()
        return figures

    def _info_figures(self) -> dict[str, float]:
        """The mean of each info over the episodes that have it."""
        by_name: dict[str, list[float]] = {}
        for episode in self._episodes:
            for name, value in episode.infos.items():
                by_name.setdefault(name, []).append(value)
        room = MOST_INFOS - len(self._info_names)
        self._info_names.update(sorted(by_name.keys() - self._info_names)[:room])
        return {
            f"{EPISODE_INFO}{name}": float(np.mean(by_name[name]))
            for name in sorted(by_name.keys() & self._info_names)
        }


def _statistics(name: str, values: ArrayLike, **functions: Any) -> dict[str, Any]:
    """NAME_mean and so on; empty when there are no values."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return {}
    return {f"{name}_{suffix}": float(f(array)) for suffix, f in functions.items()}


def _p95(values: NDArray[np.float64]) -> Any:
    return np.percentile(values, 95)
