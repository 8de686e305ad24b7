"""What the batches of an interval tell: age of the behaviour policies, actors, episodes. Pure."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from impala_redis.common.blocks.trajectory import Episode

if TYPE_CHECKING:
    from impala_redis.common.learning.batch import Batch

# Of so many of the last versions it is known when they were made.
VERSIONS = 65_536
# So many returns of an interval are told one by one.
MOST_RETURNS = 20


class Tally:
    """Counts what batches bring with them, until `take`."""

    def __init__(self) -> None:
        self._made_s = np.full(VERSIONS, np.nan)  # when, by version modulo VERSIONS
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
        """The figures since the last call, without those that have no value; starts anew."""
        returns = [episode.episode_return for episode in self._episodes]
        columns = len(self._lags) + len(self._replay_lags)
        figures = {
            **_told("policy_lag", self._lags, mean=np.mean, p95=_p95, max=np.max),
            **_told("policy_lag_s", self._lags_s, mean=np.mean, p95=_p95, max=np.max),
            **_told("replay_lag", self._replay_lags, mean=np.mean),
            **_told("actor_frames_per_s", self._rates, mean=np.mean, min=np.min, max=np.max),
            **_told("episode_return", returns, mean=np.mean, min=np.min, max=np.max),
            **_told("episode_length", [e.length for e in self._episodes], mean=np.mean),
        }
        if self._replay_lags:
            figures["replay_share"] = len(self._replay_lags) / columns
        if self._unrolls_s:
            figures["unroll_s"] = float(np.mean(self._unrolls_s))
            figures["actors"] = len(self._actors)
        if returns:
            figures["episode_returns"] = returns[:: -(-len(returns) // MOST_RETURNS)]
        self._clear()
        return figures


def _told(name: str, values: ArrayLike, **of: Any) -> dict[str, Any]:
    """NAME_mean and so on; nothing of nothing."""
    array = np.asarray(values, np.float64)
    return {f"{name}_{how}": float(f(array)) for how, f in of.items()} if array.size else {}


def _p95(values: NDArray[np.float64]) -> Any:
    return np.percentile(values, 95)
