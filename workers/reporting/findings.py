"""A run's records in words: what held it up, and where an update's time went.

A sentence whose figures are in no record is left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from impala_redis.common.records import history
from impala_redis.common.records.history import Run, RunRecords
from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.records.refusals import REFUSALS, why_refused
from impala_redis.common.transport.diagnosis import (
    NOT_ENOUGH_FIGURES,
    STAGES,
    Situation,
    binding_stage,
    bottleneck,
)
from impala_redis.common.transport.situation import costs_more_than_waiting, work_of
from impala_redis.workers.reporting.ranks import learners, slow_rank_of

# On the learner's main thread, in this order; those of a GPU go on beside the thread's others.
WAIT, TRANSFER = "waiting for a batch", "moving the batch to the device"
WEIGHTS = "copying the weights out"
ON_DEVICE = {
    "transfer_s": TRANSFER,
    "forward_s": "forward: network and loss",
    "backward_s": "backward",
    "optimizer_s": "optimizer",
}
# The stages of an update that is one CUDA graph.
AS_GRAPH = {
    "transfer_s": TRANSFER,
    "graph_s": "forward, backward and optimizer, as one CUDA graph",
}
# On threads of their own, at the same time.
BESIDE = {
    "batch_s": "beside, waits included: checking blocks and copying them",
    "claim_s": "beside, waits included: claiming, until Redis replies",
    "publish_s": "beside, waits included: publishing the weights",
}
# Processor time of the threads that do it, whatever they wait for.
CPU = ("feeder_cpu_s", "publisher_cpu_s")
# What the settings do about policy lag; without settings nothing is claimed.
CORRECTED = {
    "vtrace": ", which V-trace corrects for",
    "one_step": ", which the policy gradient alone is corrected for",
    "epsilon": ", and nothing corrects for it",
    "none": ", and nothing corrects for it",
}
BOOKKEEPING = "the rest: records, checkpoints, bookkeeping"
NOTHING_TO_COMPUTE = "the rest: the device has nothing to compute"
MS = 1e3
# Below this most of what is played is thrown away.
LITTLE_LEARNED = 0.5


@dataclass(frozen=True)
class Account:
    """Where the time of an update went, in seconds for each update."""

    whole_s: float  # from update to update
    # One after the other, the rest included: on the main thread, or on a GPU.
    stages: dict[str, float]
    beside: dict[str, float]  # at the same time on other threads, by the clock: waits included
    cpu_s: float | None  # what the feeder and the publisher had of a processor; None: not measured
    wait_s: float | None  # how long the main thread had no batch; None: not measured
    on_gpu: bool = False


def what_held_it_up(run: Run) -> list[str]:
    """The bottleneck, and the figures behind it."""
    records = run.records
    situation = situation_of(run)
    sentence, stage = bottleneck(situation), binding_stage(situation)
    said = [] if sentence == NOT_ENOUGH_FIGURES else [_sentence(sentence)]
    if stage:
        said.append(
            f"The stage that binds: {stage.name}, {100 * stage.share:.1f} % of the learner's time "
            f"({STAGES[stage.name].meaning})."
        )
    if (slow := slow_rank_of(run)) and not situation.slow_rank:
        said.append(_sentence(f"{slow}; {slow.remedy}"))
    if (wait := situation.wait_share) is not None:
        who = "The learner" if math.isnan(learners(run)) else "Rank 0 of the group"
        said.append(f"{who} was without a batch for {100 * wait:.1f} % of its time.")
    if (dropped := situation.dropped_share) is not None:
        said.append(
            f"Of the blocks pushed, {100 * dropped:.1f} % were dropped because the list was full."
        )
    queue = history.mean(records, "queue_blocks", "time_s")
    waited_s = history.mean(records, "queue_wait_s", "time_s")
    bound = run.settings.get("queue_blocks")
    if queue is not None:
        words = f"The learner found {queue:.1f} blocks in the list on average"
        words += f", of at most {bound}" if bound else ""
        words += f", and a block lay in it for {_ms(waited_s)}" if waited_s is not None else ""
        said.append(words + ".")
    return said + list(_what_was_left_out(run))


def situation_of(run: Run) -> Situation:
    """What the records show of the run, in the mean over all of it."""
    records, actors = run.records, run.records.last("actors")
    slow = slow_rank_of(run)

    def figure(name: str) -> float | None:
        return history.mean(records, name, "updates" if name == "transfer_s" else "time_s")

    return Situation(
        learner_present=True,
        actors=None if math.isnan(actors) else int(actors),
        wait_share=figure("wait_share"),
        dropped_share=dropped_share(run),
        claim_share=figure("claim_share"),
        refused_share=figure("refused_share"),
        work=work_of(figure),
        slow_rank=costs_more_than_waiting(slow, figure("wait_share")),
    )


def dropped_share(run: Run) -> float | None:
    """The share of pushed blocks that were dropped; by the counters, else by the shares.

    The counters are the server's: they include what runs of that name did before, and begin again
    at 0 when the server forgets them. So only what they rose by counts.
    """
    produced, dropped = _rise(run.records, "blocks_produced"), _rise(run.records, "blocks_dropped")
    if produced > 0:
        return min(dropped / produced, 1.0)
    return history.mean(run.records, "dropped_share", "time_s")


def _count(records: RunRecords, name: str) -> float:
    """What a counter came to that each session of the run begins at 0."""
    values = records.column(name)
    values = values[np.isfinite(values)]
    rises = np.diff(values, prepend=0.0)
    return float(np.where(rises < 0, values, rises).sum())


def _rise(records: RunRecords, name: str) -> float:
    values = records.column(name)
    return float(np.maximum(np.diff(values[np.isfinite(values)]), 0.0).sum())


def refused_share(run: Run) -> float | None:
    """The share refused of the columns that came: by the result, else by the records."""
    refused = run.result.get("refused")
    share = refused.get("refused_share") if isinstance(refused, dict) else None
    known = number_or_nan(share)
    return history.mean(run.records, "refused_share", "time_s") if math.isnan(known) else known


def _what_was_left_out(run: Run) -> Iterator[str]:
    counts = {name: _count(run.records, name) for name in REFUSALS}
    if why := why_refused(counts):
        share = refused_share(run)
        of_all = "" if share is None else f", {100 * share:.1f} % of those that came"
        yield (
            f"{sum(counts.values()):,.0f} columns (trajectories of one environment) were refused"
            f"{of_all}, most of them because {why}."
        )
    if stale := _count(run.records, "columns_stale"):
        yield f"{stale:,.0f} columns came too late for --max-policy-lag and were not trained on."
    learned = history.mean(run.records, "learned_share", "updates")
    if learned is not None and learned < LITTLE_LEARNED:
        yield (
            f"Of the steps trained on, only {100 * learned:.1f} % were learned from: Monte Carlo "
            "returns leave out those whose episode does not end inside the unroll. A longer "
            "--unroll-length leaves out fewer."
        )


def account(run: Run) -> Account | None:
    """The time of an update; None when its stages were not measured."""
    records = run.records
    as_graph = not math.isnan(records.last("graph_s"))
    names = AS_GRAPH if as_graph else ON_DEVICE
    on_device, whole_s = dict(_per_update(records, names)), _whole_s(records)
    if not ({"forward_s", "backward_s"} <= set(on_device) or as_graph) or whole_s is None:
        return None
    on_gpu = not math.isnan(records.last("device_memory_bytes"))
    stages = {names[name]: seconds for name, seconds in on_device.items()}
    wait_s, weights_s = (history.mean(records, name, "updates") for name in ("wait_s", "weights_s"))
    waiting = {} if wait_s is None else {WAIT: wait_s}
    copying = {} if weights_s is None else {WEIGHTS: weights_s}
    if not on_gpu:
        stages = waiting | stages | copying
    rest_s = whole_s - sum(stages.values())
    if rest_s > 0:
        stages[NOTHING_TO_COMPUTE if on_gpu else BOOKKEEPING] = rest_s
    beside = dict(_per_update(records, BESIDE))
    if "publish_s" in beside:  # measured for each version, and not each update's is published
        versions = _versions_per_update(records)
        beside["publish_s"] *= versions if versions is not None else 1.0
    at_once = {BESIDE[name]: seconds for name, seconds in beside.items()}
    if on_gpu:
        at_once = {f"main thread: {name}": s for name, s in (waiting | copying).items()} | at_once
    cpu = [seconds for _, seconds in _per_update(records, dict.fromkeys(CPU, ""))]
    return Account(whole_s, stages, at_once, sum(cpu) if cpu else None, wait_s, on_gpu)


def why_it_is_fast(run: Run, time: Account | None) -> list[str]:
    """Sentences on what went on at the same time, and on who did not wait."""
    return [*_hidden_work(time), *_actors_never_wait(run)]


def _hidden_work(time: Account | None) -> Iterator[str]:
    """Counts processor time, which must be spent somewhere; clocks flatter a busy machine."""
    if time is None or time.cpu_s is None:
        return
    whole_s, cpu_s, wait_s = time.whole_s, time.cpu_s, time.wait_s
    where = "from one to the next" if time.on_gpu else "of the learner's main thread"
    yield (
        f"An update took {_ms(whole_s)} {where}. Beside it, other threads "
        f"computed for {_ms(cpu_s)}: they claimed blocks, made the next batch and published "
        "weights."
    )
    if wait_s is None or time.on_gpu:  # beside a GPU the main thread has time for that work
        return
    hidden_s = max(0.0, cpu_s - wait_s)
    if hidden_s == 0:
        yield (
            f"The main thread stood still for {_ms(wait_s)} of it, no less than that work takes: "
            "blocks came late, and nothing was gained by doing it beside."
        )
        return
    yield (
        f"Had the main thread done that work as well, an update would have taken at least "
        f"{_ms(whole_s + hidden_s)}, {100 * hidden_s / whole_s:.0f} % more: it stood still for "
        f"{_ms(wait_s)} only, so at least {_ms(hidden_s)} of the work "
        f"({100 * hidden_s / cpu_s:.0f} %) was hidden behind the computation."
    )


def _actors_never_wait(run: Run) -> Iterator[str]:
    records = run.records
    rate = history.mean(records, "actor_frames_per_s_mean", "time_s")
    dropped = dropped_share(run)
    if rate is not None:
        words = f"Meanwhile an actor played {rate:,.0f} frames/s on average"
        if dropped:
            words += (
                f", and did not wait for the learner: where the list was full, the oldest block "
                f"was dropped ({100 * dropped:.1f} % of them)"
            )
        yield words + "."
    lag_s = history.mean(records, "policy_lag_s_mean", "updates")
    lag = history.mean(records, "policy_lag_mean", "updates")
    if lag is not None:
        age = f" ({_ms(lag_s)})" if lag_s is not None else ""
        corrected = CORRECTED.get(run.settings.get("correction", ""), "")
        yield f"The price is a policy lag of {lag:.1f} versions{age} on average{corrected}."


def _per_update(records: RunRecords, names: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name in names:
        seconds = history.mean(records, name, "updates")
        if seconds is not None:
            yield name, seconds


def _whole_s(records: RunRecords) -> float | None:
    """Seconds from update to update."""
    updates, time_s = history.series(records, "time_s", over="updates")
    if len(updates) < 2 or updates[-1] <= updates[0]:
        return None
    return float((time_s[-1] - time_s[0]) / (updates[-1] - updates[0]))


def _versions_per_update(records: RunRecords) -> float | None:
    published = history.mean(records, "published_per_s", "time_s")
    whole_s = _whole_s(records)
    if published is None or whole_s is None:
        return None
    return min(published * whole_s, 1.0)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def _ms(seconds: float) -> str:
    return f"{seconds * MS:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
