"""What impala-status shows of a run, as rows of text: verdict, learner, queue, books, actors."""

from collections.abc import Mapping, Sequence
from typing import Any

from impala_redis.common.errors import printable
from impala_redis.common.records.figure import (
    EPISODE_INFO,
    SHARE,
    TASK_FRAMES,
    TASK_RETURN,
    TASK_SCORE,
)
from impala_redis.common.records.figures import FIGURES
from impala_redis.common.records.returns import shown_return
from impala_redis.common.server.suitability import Eviction
from impala_redis.common.transport.diagnosis import STAGES
from impala_redis.common.transport.monitor import WHEREABOUTS
from impala_redis.common.transport.replies import finite_number, whole_number
from impala_redis.common.transport.situation import (
    STANDBY_SHARE,
    WAIT_SHARE,
    RunStatus,
    behind,
    figures_are_current,
)
from impala_redis.workers import ranks, scores

Row = tuple[str, str]  # label and text
# The rows below word these figures in their own way, or the verdict is made of them, or they say
# what other rows say already; a figure that is not among them stands in the row "figures".
WORDED_FIGURES = {
    *("frames", "game_frames", "updates", "episodes", "mean_return_100", "frames_per_s"),
    *("wait_share", "device_busy_share", "device_memory_bytes", "claim_share", "bytes_per_step"),
    *("transfer_s", "updates_per_s", "publish_share"),
    *("policy_lag_mean", "policy_lag_p95", "policy_lag_max"),
    *("policy_lag_s_mean", "policy_lag_s_p95", "policy_lag_s_max"),
    *("updates_skipped", "runs_lost", "columns_refused", "refused_share", f"{EPISODE_INFO}*"),
    *("ranks", f"{WAIT_SHARE}*", f"{STANDBY_SHARE}*"),
    *("score", f"{TASK_RETURN}*", f"{TASK_SCORE}*", f"{TASK_FRAMES}*"),
}
MOST_INFOS = 8  # shown


def as_text(run: str, status: RunStatus) -> str:
    """The status in lines of text."""
    lines = [f"{label:<8} {text}" for label, text in rows(run, status)]
    for name, actor in status["actors"].items():
        lag = behind(actor, status["learner"]["weights_version"])
        lines.append(
            f"  {name:<24} {actor.get('host', '?')}:{actor.get('pid', '?')}  "
            f"{whole_number(actor.get('frames_per_s'), 0):>9,} frames/s  version "
            f"{actor.get('weights_version', '?')} ({lag} behind)  shed {actor.get('shed_local', 0)}"
            f"{_waited(actor)}"
        )
    return "\n".join(lines)


def _waited(actor: dict[str, str]) -> str:
    """How long an actor has waited for room in the list, if it has."""
    waited_s = finite_number(actor.get("waited_s")) or 0.0
    return f"  waited {waited_s:,.0f} s for room" if waited_s else ""


def rows(run: str, status: RunStatus) -> list[Row]:
    """Everything but the single actors."""
    books, learner, memory = status["books"], status["learner"], status["memory"]
    found = [
        ("run", f"{run}, {status['state'] or 'not announced'}"),
        ("verdict", status["bottleneck"]),
        *_binding(status.get("binds")),
        *_learner(learner, status.get("updates_per_s")),
        *_tasks(status.get("tasks", ()), learner["figures"]),
        *_queue(books, status["queue_blocks"], status.get("blocks_per_s")),
    ]
    if memory:
        found.append(("memory", _memory(memory)))
    found.append(("books", _books(books, status["residual"])))
    reasons = [
        f"{name.partition(':')[2]} {count}"
        for name, count in sorted(books.items())
        if name.startswith("dead_lettered:")
    ]
    if reasons:
        found.append(("refused", ", ".join(reasons)))
    return [*found, *notices(status), ("actors", _actors(status))]


def notices(status: RunStatus) -> list[Row]:
    """What an operator must not overlook, the gravest first."""
    books, figures = status["books"], status["learner"]["figures"]
    found = []
    if status["residual"]:
        blocks = status["residual"]
        found.append(("ALARM", f"the books do not balance: {blocks} blocks are unexplained"))
    for name in status.get("broken", ()):
        found.append(
            (
                "ALARM",
                f"somebody has broken {printable(name)}; a learner mends it when it opens the run, "
                "as impala-learner --resume does",
            )
        )
    if lost := int(figures.get("runs_lost", 0)):
        found.append(
            (
                "notice",
                f"opened again: {lost}; the server had lost the run or a part of it, and the "
                "blocks that were there are gone",
            )
        )
    if eviction := _eviction_notice(status["memory"]):
        found.append(("notice", eviction))
    if books.get("foreign"):
        found.append(("notice", f"{books['foreign']} blocks came onto the list around the push"))
    if refused := int(figures.get("columns_refused", 0)):
        lately = f", {100 * figures.get('refused_share', 0.0):.1f} % of what came lately"
        found.append(
            (
                "notice",
                f"{refused:,} columns of blocks were refused{lately}; the learner's log says why",
            )
        )
    if skipped := int(figures.get("updates_skipped", 0)):
        found.append(("notice", f"{skipped} updates were skipped: their gradients were not finite"))
    return found


def _eviction_notice(memory: Mapping[str, Any] | None) -> str | None:
    """What the server evicts when it is full, from a reading of its memory; None for nothing."""
    if memory is None:
        return None
    eviction = Eviction(memory.get("policy", ""), memory.get("evicted_keys", 0))
    what = f"(maxmemory-policy {eviction.policy}; {eviction.evicted_keys:,} keys since its start)"
    if eviction.endangers_runs:
        return f"the server may evict the run's keys {what}; set maxmemory-policy noeviction"
    if eviction.spares_lasting_keys and eviction.evicted_keys:
        return (
            f"the server evicts keys that expire {what}: the run's lease and actors may be missing "
            "here for a second"
        )
    return None


def _binding(stage: dict[str, Any] | None) -> list[Row]:
    """The stage that binds, by one word and its share, and what goes on meanwhile."""
    if stage is None:
        return []
    name, share = stage["name"], stage["share"]
    return [("binds", f"{name}, {100 * share:.0f} % of the time: {STAGES[name].meaning}")]


def _learner(learner: dict[str, Any], updates_per_s: float | None) -> list[Row]:
    """The learner's place and its own figures; those of a learner that is gone are the last."""
    holder, figures, now = learner["holder"], learner["figures"], figures_are_current(learner)
    place = holder.partition("#")[0] if holder else "none: no lease is held"  # host:pid
    if learner.get("is_gone"):
        place += ", which has ended"
    group = ranks.group_of(figures) if now else ""
    whose = "rank 0 waits" if group else "waits"
    waits = "".join(
        f"; {words} {100 * figures[name]:.0f} %"
        for name, words in (("wait_share", whose), ("device_busy_share", "its device is busy"))
        if now and name in figures
    )
    if now and "device_memory_bytes" in figures:
        waits += f", {figures['device_memory_bytes'] / 1e6:,.0f} MB of its memory held"
    age = _age(learner.get("published_age_s"))
    updates = f"; {figures['updates']:,.0f} updates" if "updates" in figures else ""
    rate = f", {updates_per_s:.1f}/s" if updates and updates_per_s is not None else ""
    found = [
        ("learner", f"{group}{place}, epoch {learner['epoch']}{waits}"),
        *([("ranks", said)] if now and (said := ranks.in_words(figures)) else []),
        ("weights", f"version {learner['weights_version']}{age}{updates}{rate}"),
    ]
    if figures:
        mean_return = shown_return(figures.get("mean_return_100"))
        frames, game_frames = figures.get("frames", 0), figures.get("game_frames", 0)
        whole = f" of {figures['total_frames']:,.0f}" if "total_frames" in figures else ""
        repeated = f" ({game_frames:,.0f} of the game)" if game_frames > frames else ""
        size = _figure(figures, "bytes_per_step", ",.0f")
        found += [
            (
                "training" if now else "last",
                f"{frames:,.0f}{whole} frames{repeated}, "
                f"{figures.get('frames_per_s', 0):,.0f}/s; return {mean_return}",
            ),
            ("data", f"policy lag {_lag(figures)}; {size} bytes a step"),
            *_further_figures(figures),
        ]
    return found


def _tasks(names: Sequence[str], figures: Mapping[str, float]) -> list[Row]:
    """The mean score over the run's tasks, and what each of them has come to."""
    lines = scores.lines_of(names, figures)
    if not lines:
        return []
    rows = [("" if number else "tasks", line) for number, line in enumerate(lines)]
    return [("score", scores.shown_score(figures.get("score"))), *rows]


def _further_figures(figures: dict[str, float]) -> list[Row]:
    """A row of the figures that no other row words."""
    texts = [
        f"{figure.label} {_value(figures[name], figure.unit)}"
        for name, figure in FIGURES.items()
        if figure.in_status and name in figures.keys() - WORDED_FIGURES
    ]
    infos = [
        f"{printable(name.removeprefix(EPISODE_INFO))} {_value(value, '')}"
        for name, value in figures.items()
        if name.startswith(EPISODE_INFO)
    ]
    more = [f"and {len(infos) - MOST_INFOS} more"] if len(infos) > MOST_INFOS else []
    return [
        *([("figures", ", ".join(texts))] if texts else []),
        *([("infos", ", ".join(infos[:MOST_INFOS] + more))] if infos else []),
    ]


def _value(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit == SHARE else f"{value:,.4g} {unit}".rstrip()


def _age(published_age_s: float | None) -> str:
    if published_age_s is None:
        return ": none published"
    return f", published {max(0.0, published_age_s):.1f} s ago"


def _lag(figures: dict[str, float]) -> str:
    """Mean, 95th percentile and greatest: in versions and, if the learner left them, in seconds."""
    versions = f"{_spread(figures, 'policy_lag', '.0f')} versions"
    if "policy_lag_s_mean" not in figures:
        return versions
    return f"{versions}, {_spread(figures, 'policy_lag_s', '.2f')} s"


def _spread(figures: dict[str, float], name: str, form: str) -> str:
    most = [
        f"{word} {format(figures[f'{name}_{word}'], form)}"
        for word in ("p95", "max")
        if f"{name}_{word}" in figures
    ]
    mean = _figure(figures, f"{name}_mean", ".2f" if form == ".2f" else ".1f")
    return f"{mean} ({', '.join(most)})" if most else mean


def _queue(books: dict[str, Any], bound: int | None, rates: dict[str, float] | None) -> list[Row]:
    of = f" of {bound}" if bound else ""
    found = [("queue", f"{books['queued']}{of} blocks, {books['in_flight']} in flight")]
    if rates is not None:
        found.append(
            (
                "blocks/s",
                f"{rates['produced']:.1f} pushed, {rates['consumed']:.1f} consumed, "
                f"{rates['dropped_oldest']:.1f} dropped",
            )
        )
    return found


def _memory(memory: dict[str, Any]) -> str:
    used = f"{memory['used_bytes'] / 1e6:,.0f} MB"
    if not memory["maxmemory_bytes"]:
        return f"{used}, no limit is set"
    return f"{used} of {memory['maxmemory_bytes'] / 1e6:,.0f} MB, {100 * memory['share']:.0f} %"


def _books(books: dict[str, Any], residual: int) -> str:
    """Where the produced blocks are."""
    where = " + ".join(f"{books[name]:,} {name}" for name in WHEREABOUTS if books.get(name))
    return f"produced {books['produced']:,} = {where or '0'}; residual {residual}"


def _actors(status: RunStatus) -> str:
    actors: dict[str, dict[str, str]] = status["actors"]
    more = f"; {left_out:,} more" if (left_out := status.get("actors_left_out", 0)) else ""
    if not status.get("looked_at_all", True):
        more += "; perhaps more: this server has so many keys that only some were looked at"
    if not actors:
        return f"0{more}"
    hosts = len({actor.get("host") for actor in actors.values()})
    rates = [whole_number(actor.get("frames_per_s"), 0) for actor in actors.values()]
    shed = sum(whole_number(actor.get("shed_local"), 0) for actor in actors.values())
    spread = f" ({min(rates):,} to {max(rates):,} each)" if len(actors) > 1 else ""
    return (
        f"{len(actors)} on {hosts} host{'s' * (hosts > 1)}, {sum(rates):,} frames/s{spread}; "
        f"shed {shed:,}{more}"
    )


def _figure(figures: dict[str, float], name: str, form: str = ".1f") -> str:
    return format(figures[name], form) if name in figures else "-"
