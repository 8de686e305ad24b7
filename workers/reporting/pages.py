"""What a report's page shows, as plain values for its template."""

import itertools
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from impala_redis import __version__
from impala_redis.common.errors import printable
from impala_redis.common.records import history
from impala_redis.common.records.history import Group, Run
from impala_redis.common.records.lines import number_or_nan
from impala_redis.common.records.returns import of_episodes, shown_return
from impala_redis.common.tasks.listing import told
from impala_redis.workers.reporting import findings, ranks, tasks
from impala_redis.workers.reporting.tables import Table, figures_table, settings_table, task_table
from impala_redis.workers.reporting.words import run_labels, setting

if TYPE_CHECKING:
    from impala_redis.workers.reporting.charts import Drawing

NOT_ENDED = "not ended: killed, or still running"
STATUS_CLASSES = {"solved", "finished", "interrupted", "failed"}


def page(groups: Sequence[Group], drawings: Sequence["Drawing"]) -> dict[str, Any]:
    """Every value that the template asks for."""
    runs = [run for group in groups for run in group.runs]
    sections = [
        (name, list(members))
        for name, members in itertools.groupby(drawings, key=lambda drawing: drawing.section)
    ]
    shown = {
        "sections": sections,
        "status": "",
        "status_class": "",
        "keys": [],
        "runs": None,
        "tasks": None,
        "findings": [],
        "charts_note": "",
        "settings": settings_table(runs),
        "notes": list(_notes(runs)),
    }
    return shown | (_of_one(runs[0]) if len(runs) == 1 else _of_several(groups, runs))


def _of_one(run: Run) -> dict[str, Any]:
    status = _status(run)
    return {
        "title": f"{run.name}: {_env(run)}",
        "head": list(_head(run)),
        "status": _ending(run),
        "status_class": status if status in STATUS_CLASSES else "unended",
        "keys": list(_keys(run)),
        "tasks": task_table(run),
        "findings": list(_findings(run)),
        "figures": [figures_table(run, "Each figure over the run's records.")],
    }


def _of_several(groups: Sequence[Group], runs: Sequence[Run]) -> dict[str, Any]:
    labels = run_labels(runs)
    if len(groups) == 1:
        note = (
            "Lines are means over the runs, which differ in nothing but the seed; bands reach from "
            "the least to the greatest of them."
        )
    else:
        note = (
            "Each colour is one choice of settings. Where it has several runs, they differ in "
            "nothing but the seed: the line is their mean, the band reaches from the least to the "
            "greatest of them."
        )
    return {
        "title": f"{len(runs)} runs: {', '.join(dict.fromkeys(_env(run) for run in runs))}",
        "head": [_grouping(groups)],
        "runs": _runs_table(groups, runs, labels),
        "findings": list(_findings_of_several(runs, labels)),
        "charts_note": note + " A run counts as far as it went.",
        "figures": [
            figures_table(run, f"{label}: each figure over its records.")
            for run, label in zip(runs, labels, strict=True)
        ],
    }


def _grouping(groups: Sequence[Group]) -> str:
    known = [group for group in groups if group.runs[0].settings]
    count, unknown = sum(len(group.runs) for group in known), len(groups) - len(known)
    said = []
    if len(known) == 1:
        said.append(
            f"{count} runs of the same settings" if count > 1 else "1 run of known settings"
        )
    elif known:
        keys = ", ".join(_differing(groups))
        said.append(f"{count} runs in {len(known)} choices of settings, which differ in {keys}")
    if unknown:
        said.append(f"{unknown} run{'' if unknown == 1 else 's'} of unknown settings")
    return "; ".join(said) + "."


def _differing(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(key for group in groups for key in group.differing))


def _head(run: Run) -> Iterator[str]:
    """The preset, the seed, when the run began, and the versions of its packages."""
    seed = f"seed {run.seed}" if run.seed is not None else "seed unknown"
    preset = f"preset {run.preset}" if run.preset else "no preset"
    began = _began(run)
    yield f"{preset}, {seed}" + (f", begun {began}" if began else "")
    if run.init_from:
        yield f"begun with the weights of {printable(run.init_from)}"
    versions = run.result.get("versions")
    if isinstance(versions, dict) and versions:
        yield ", ".join(f"{k} {v}" for k, v in versions.items() if isinstance(v, str))


def _began(run: Run) -> str:
    unix_s = run.records.column("unix_s")[0]
    time_s = run.records.column("time_s")[0]
    try:
        began = datetime.fromtimestamp(unix_s - time_s, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return began.strftime("%Y-%m-%d %H:%M UTC")


def _status(run: Run) -> str:
    status = run.result.get("status")
    return status if isinstance(status, str) else NOT_ENDED


def _ending(run: Run) -> str:
    """How the run ended, and how well its policy plays."""
    mean, error = _outcome(run, "mean_return_100"), run.result.get("error")
    words = _status(run).capitalize()
    if not math.isnan(mean):
        words += (
            f", mean return {shown_return(mean)} {of_episodes(len(run.settings.get('tasks', ())))}"
        )
        words += f", mean score {score}" if (score := tasks.score_of(run)) else ""
    goal = run.settings.get("stop_at_return")
    if goal is not None:
        words += f" (solved at {goal:g})"
    return words + (f". Error: {error}" if isinstance(error, str) else "")


def _outcome(run: Run, name: str) -> float:
    """A figure of the result, else of the last record that has it; NaN when there is none."""
    value = number_or_nan(run.result.get(name))
    return run.records.last(name) if math.isnan(value) else value


def _wall_s(run: Run) -> float:
    """The time that the user waited, else the time up to the last record."""
    value = number_or_nan(run.result.get("wall_s"))
    return _outcome(run, "time_s") if math.isnan(value) else value


def _keys(run: Run) -> Iterator[tuple[str, str]]:
    """Key figures, without those that have no value."""
    mean = _outcome(run, "mean_return_100")
    if not math.isnan(mean):
        yield "mean return", shown_return(mean)
    if score := tasks.score_of(run):
        yield "mean score", score
    for name, value, form in (
        ("frames", _outcome(run, "frames"), "{:,.0f}"),
        ("wall time", _wall_s(run), "{:,.1f} s"),
        ("frames/s", _outcome(run, "frames_per_s"), "{:,.0f}"),
        ("updates", _outcome(run, "updates"), "{:,.0f}"),
        ("episodes", _outcome(run, "episodes"), "{:,.0f}"),
        ("learners", ranks.learners(run), "{:,.0f}"),
        ("policy lag", _mean(run, "policy_lag_mean", "updates"), "{:.1f} versions"),
        ("steps clipped", 100 * _clipped(run), "{:.1f} %"),
        ("learner waits", 100 * _mean(run, "wait_share", "time_s"), "{:.1f} %"),
        ("device busy", 100 * _mean(run, "device_busy_share", "time_s"), "{:.1f} %"),
        ("GPU memory", run.records.last("device_memory_bytes") / 1e6, "{:,.0f} MB"),
        ("columns refused", 100 * (_or_nan(findings.refused_share(run)) or math.nan), "{:.1f} %"),
        ("blocks dropped", 100 * _or_nan(findings.dropped_share(run)), "{:.1f} %"),
    ):
        if not math.isnan(value):
            yield name, form.format(value)


def _clipped(run: Run) -> float:
    """The share that rho-bar clips; NaN where it clips nothing."""
    if run.settings.get("correction") != "vtrace":
        return math.nan
    return _mean(run, "rho_clipped_share", "updates")


def _mean(run: Run, name: str, per: str) -> float:
    return _or_nan(history.mean(run.records, name, per))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _findings(run: Run) -> Iterator[dict[str, Any]]:
    """Headed paragraphs, without those that have nothing to say."""
    limits = findings.what_held_it_up(run)
    if limits:
        yield {"title": "What held it up", "sentences": limits, "leads": True, "times": []}
    time = findings.account(run)
    said = findings.why_it_is_fast(run, time)
    times = list(_time_rows(time)) if time is not None else []
    if said or times:
        title = "Where an update's time went"
        yield {"title": title, "sentences": said, "leads": False, "times": times}


def _findings_of_several(runs: Sequence[Run], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The bottleneck of each run."""
    said = [
        f"{label}: {limits[0]}"
        for run, label in zip(runs, labels, strict=True)
        if (limits := findings.what_held_it_up(run))
    ]
    if said:
        yield {"title": "What held them up", "sentences": said, "leads": False, "times": []}


def _time_rows(time: findings.Account) -> Iterator[dict[str, Any]]:
    def row(name: str, seconds: float, beside: bool = False, sum: bool = False) -> dict[str, Any]:
        share = seconds / time.whole_s
        return {
            "name": name,
            "ms": f"{seconds * findings.MS:.2f}",
            "share": f"{100 * share:.0f} %",
            "width": 0 if sum else min(round(100 * share, 1), 100),
            "beside": beside,
            "sum": sum,
        }

    for name, seconds in time.stages.items():
        yield row(name, seconds)
    yield row("an update, one stage after the other", time.whole_s, sum=True)
    for name, seconds in time.beside.items():
        yield row(name, seconds, beside=True)
    if time.cpu_s is not None:
        yield row("processor time of those threads", time.cpu_s, beside=True, sum=True)


def _runs_table(groups: Sequence[Group], runs: Sequence[Run], labels: Sequence[str]) -> Table:
    """One row for each run."""
    keys = _differing(groups)
    score = ["mean score"] if any(map(tasks.score_of, runs)) else []
    head = ["run", *keys, "seed", "status", "mean return", *score, "frames", "wall s", "frames/s"]
    rows = [
        [
            label,
            *(setting(run.settings[key]) if run.settings else "-" for key in keys),
            "-" if run.seed is None else str(run.seed),
            _status(run),
            shown_return(_outcome(run, "mean_return_100")),
            *(tasks.score_of(run) or "-" for _ in score),
            _cell(_outcome(run, "frames"), "{:,.0f}"),
            _cell(_wall_s(run), "{:,.1f}"),
            _cell(_outcome(run, "frames_per_s"), "{:,.0f}"),
        ]
        for run, label in zip(runs, labels, strict=True)
    ]
    return Table("Each run, and the settings in which they differ.", head, rows, "")


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    skipped = sum(run.skipped_lines for run in runs)
    if skipped:
        lines = "1 line" if skipped == 1 else f"{skipped:,} lines"
        yield (
            f"{lines} of metrics.jsonl could not be read and had to be left out; a program that is "
            "killed may leave one unfinished."
        )
    thinned = max(run.records.every for run in runs)
    if thinned > 1:
        yield (
            f"There are too many records to hold them all: only one of {thinned} was read, so a "
            "peak between two of them may be missing."
        )
    yield from (*ranks.notes(runs), *tasks.notes(runs))
    records = sum(run.records.count for run in runs)
    yield (
        f"Made by impala-report {__version__} from {records:,} "
        f"record{'' if records == 1 else 's'} of metrics.jsonl. Means of times and shares are "
        "weighted, and leave out the first record, in which the actors start."
    )


def _env(run: Run) -> str:
    return told(str(run.settings.get("env", "environment unknown")), run.settings.get("tasks", ()))
