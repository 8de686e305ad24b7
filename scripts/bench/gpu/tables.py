"""The kit's figures as tables in Markdown."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.gpu.plan import Row
from bench.pages import rounded, table

Document = dict[str, Any]
# The words of each part, in the order of the page.
PARTS = {
    "tests": "Tests that need a GPU",
    "a": "Updates from memory",
    "b": "Pong to a return of 18",
    "c": "CartPole's large batches",
    "d": "The deep network acting",
    "e": "Several learners of one run",
}
# What is told of a training, with heads.
TRAINING = {
    "frames_per_s": "frames/s",
    "updates_per_s": "updates/s",
    "device_busy_share": "device busy",
    "wait_share": "waits for blocks",
    "policy_lag_mean": "policy lag",
    "dropped_share": "dropped",
}


def page(document: Document) -> str:
    """All tables, under the machine; a part that has failed says so."""
    machine, parts = document["machine"], document["parts"]
    card = machine.get("card", "unknown")
    title = "cpu: a short form of the kit, which says nothing about a GPU"
    lines = [f"# {title if document['device'] == 'cpu' else card}", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    for name, words in PARTS.items():
        if name in parts:
            of = parts[name]
            lines += [f"## {words} ({document['device']})", ""]
            if of["failed"]:
                lines += [f"Failed after {of['seconds']:.0f} s: {of['failed']}", ""]
            for one in TABLES[name](of["rows"]):
                lines += [one, ""]
    return "\n".join(lines)


def test_tables(rows: Sequence[Row]) -> Iterable[str]:
    """How many passed, and which failed."""
    heads = ("passed", "failed", "skipped", "seconds")
    yield table(heads, [[cell(row[head]) for head in heads] for row in rows])
    yield from (f"- {name}" for row in rows for name in row["which"])


def update_tables(rows: Sequence[Row]) -> Iterable[str]:
    """Tables of networks and sizes by precision and way: rates, times, kernels, and agreement."""
    cases = [row for row in rows if "network" in row]
    watched = [row for row in cases if "kernels" in row]
    yield _grid("frames/s", cases, lambda row: rounded(row["frames_per_s"]), _column)
    yield _grid(
        "ms: host, from update to update / device",
        cases,
        lambda row: " / ".join(
            rounded(1e3 * row[name]["median"]) for name in ("period_s", "device_s")
        ),
        _column,
    )
    yield _grid(
        "device busy / kernels / waits of the host, and those that nobody asked for",
        watched,
        lambda row: (
            f"{row['kernels_share']:.2f} / {row['kernels']:.0f} / "
            f"{sum(row['waits'].values()):.1f}, {row['implicit_waits']:.1f}"
        ),
        _column,
    )
    graphs = [row for row in cases if row["apart"] is not None]
    yield _grid(
        "a graph's step from the eager one", graphs, lambda row: f"{row['apart']:.1e}", _column
    )
    yield from (f"Failed: {row['failed_case']}: {row['why']}" for row in rows if "why" in row)
    yield from _left_out(rows)


def _left_out(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        if "left_out" in row:
            yield f"Left out for want of time: {len(row['left_out'])} cases."


def _grid(
    title: str,
    rows: Sequence[Row],
    written: Callable[[Row], str],
    column_of: Callable[[Row], str],
) -> str:
    columns = list(dict.fromkeys(map(column_of, rows)))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        line = f"{row['network']}, {row['batch_size']} x {row['unroll_length']}"
        cells.setdefault(line, {})[column_of(row)] = written(row)
    lines = [[line, *(of.get(column, "") for column in columns)] for line, of in cells.items()]
    return table((title, *columns), lines)


def _column(row: Row) -> str:
    """How a case was computed; a GPU that could not record a graph went on without one."""
    return f"{row['precision']}, {_mode(row)}"


def _mode(row: Row) -> str:
    not_recorded = row["mode"] == "graph" and not row["is_graph"]
    return f"{row['mode']}{', not recorded' if not_recorded else ''}"


def pong_tables(rows: Sequence[Row]) -> Iterable[str]:
    """What each training was told and came to; of those with a curve, the return against time."""
    for row in rows:
        yield f"`{row['options']}`, policies of the actors on {row['actors_on']}:"
        names = ("status", "wall_s", "frames", "mean_return_100")
        yield table(
            ["actors", *names, *TRAINING.values()],
            [[cell(row[name]) for name in ("num_actors", *names)] + cells(row)],
        )
        if curve := row["curve"]:
            names = ("time_s", "frames", "episode_return_mean")
            points = curve[:: max(1, len(curve) // 16)]
            yield table(names, [[cell(point.get(name)) for name in names] for point in points])


def throughput_tables(rows: Sequence[Row]) -> Iterable[str]:
    """A line for each engine."""
    heads = ("engine", "actors", *TRAINING.values())
    lines = [
        [f"{row['engine']} on {row['device']}", cell(row["num_actors"]), *cells(row)]
        for row in rows
    ]
    yield table(heads, lines)


def acting_tables(rows: Sequence[Row]) -> Iterable[str]:
    """The actor alone, and the training with it."""
    for row in rows:
        alone = row["what"] == "alone"
        named = [name for name in row if name.endswith("_per_s")] if alone else list(TRAINING)
        heads = [name if alone else TRAINING[name] for name in named]
        about = [f"{row['network']} on {row['device']}, {row['envs']} games, {row['what']}"]
        yield table(["", *heads], [about + [cell(row.get(name)) for name in named]])


def group_tables(rows: Sequence[Row]) -> Iterable[str]:
    """How like one learner a group is, its updates beside those of one, and what its talk costs."""
    compared, measured = (
        [row for row in rows if row.get("what") == what] for what in ("compare", "update")
    )
    calls = [row for row in rows if row.get("what") in ("exchange", "add_up")]
    yield table(
        ("weights", "updates", "furthest from one learner's", "the ranks' bits"),
        [
            [
                f"{row['network']}, {_group(row)}, {_mode(row)}",
                cell(row["updates"]),
                f"{row['apart']:.1e}",
                "alike" if row["alike"] else "**differ**",
            ]
            for row in compared
        ],
    )
    yield _grid("frames/s", measured, lambda row: rounded(row["frames_per_s"]), _learners)
    yield _grid(
        "ms: from update to update / words before it / device",
        measured,
        lambda row: " / ".join(
            rounded(1e3 * row[name]["median"]) for name in ("period_s", "words_s", "device_s")
        ),
        _learners,
    )
    heads = ("a call by each rank", "bytes", "us, median", "a tenth below", "a tenth above")
    yield table(
        heads,
        [
            [f"{row['what']}, {_group(row)}", f"{row['nbytes']:,}"]
            + [rounded(1e6 * row["call_s"][name]) for name in ("median", "p10", "p90")]
            for row in calls
        ],
    )
    yield from _left_out(rows)


def _group(row: Row) -> str:
    """How many learners, on how many devices, and by what they add up."""
    if row["ranks"] == 1:
        return "1 learner"
    return f"{row['ranks']} on {row['cards']} by {row['by']}"


def _learners(row: Row) -> str:
    return f"{_group(row)}, {_mode(row)}"


def cells(row: Row) -> list[str]:
    """What is told of a training."""
    return [cell(row.get(name)) for name in TRAINING]


def cell(value: Any) -> str:
    """A value as a table has it; nothing where there is none."""
    if isinstance(value, int | float):
        return rounded(float(value))
    return "" if value is None else str(value)


TABLES = {
    "tests": test_tables,
    "a": update_tables,
    "b": pong_tables,
    "c": throughput_tables,
    "d": acting_tables,
    "e": group_tables,
}
