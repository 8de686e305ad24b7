"""A new figure: its producer, one row of the table, and it shows up wherever figures do."""

import importlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from impala_redis.common.blocks.trajectory import Episode, empty_trajectory
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.updates import Updated
from impala_redis.common.records.figure import SHARE, Figure
from impala_redis.common.records.figures import FIGURES, reduction_of, rows
from impala_redis.common.records.history import grouped, read_run
from impala_redis.common.records.returns import shown_return
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.workers import logbook as logbook_module
from impala_redis.workers.evaluator import make_report, report_in_words
from impala_redis.workers.logbook import Logbook
from impala_redis.workers.overview import as_text
from impala_redis.workers.plan import Plan
from impala_redis.workers.playing import EpisodeResult, PlaySettings
from impala_redis.workers.progress import Progress
from impala_redis.workers.reporting import charts, pages
from impala_redis.workers.reporting.tables import figures_table
from impala_redis.workers.reporting.words import is_slug
from support import ROOT

MEANING = "share of something that nobody measures"
MADE_UP = Figure(
    "made_up_share", SHARE, MEANING, "max", in_status=True, chart="learner-waits", group="Learning"
)


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the pages, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("write_docs")


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> Figure:
    """A figure with a row in the table, and nothing more."""
    monkeypatch.setitem(FIGURES, MADE_UP.name, MADE_UP)
    return MADE_UP


def no_totals(names: str) -> dict[str, float]:
    return dict.fromkeys(names.split(), 0.0)


def learner_at_work() -> Any:
    """As much of a learner as a logbook asks for."""
    window = SimpleNamespace(episodes=0, mean_return=None)
    learner = SimpleNamespace(version=1, updates=0, frames=0, skipped=0, window=window)
    learner.engine = SimpleNamespace(memory_bytes=lambda: 5e8)
    learner.totals = lambda: {"frames": learner.frames, "updates": learner.updates, "device_s": 0}
    return learner


def record_updates(
    directory: RunDirectory, values: list[float], infos: Sequence[dict[str, float]] = ()
) -> dict[str, float]:
    """Writes records, each of two updates with the new figure; returns the figures for status."""
    config = Config().replace({"unroll_length": 2})
    spec = make_spec("test", config, ObservationSpec((), "float32"), discrete(2))
    learner = learner_at_work()
    feeder: Any = SimpleNamespace(
        figures=lambda: {"queue_blocks": 0},
        totals=lambda: no_totals(
            "claim_s batch_s feeder_cpu_s asked queued claimed bytes_received bytes_opened "
            "steps_opened"
        ),
    )
    publisher: Any = SimpleNamespace(
        figures=dict, totals=lambda: no_totals("publish_s publisher_cpu_s published")
    )
    logbook = Logbook(Plan("test", None, config, directory), spec, learner)
    left: dict[str, float] = {}
    for value, info in itertools.zip_longest(values, infos):
        for figure in (value, value / 2):
            learner.version, learner.updates = learner.version + 1, learner.updates + 1
            batch = Batch(empty_trajectory(spec, 1))
            batch.versions = [learner.version - 1]
            batch.episodes = [] if info is None else [Episode(1.0, 2, 0, info)]
            logbook.note_update(Updated(batch, learner.version, {MADE_UP.name: figure}))
        left = logbook.record(feeder, publisher)
    logbook.close()
    return left


def status_of(figures: dict[str, float]) -> dict[str, Any]:
    """What impala-status has read of a run whose learner left these figures."""
    books = dict.fromkeys(("produced", "queued", "in_flight"), 0)
    learner = {"holder": "host:7#1.2-3", "epoch": 1, "weights_version": 1, "figures": figures}
    return {
        "books": books,
        "residual": 0,
        "learner": learner | {"published_unix_s": None},
        "state": "running",
        "bottleneck": "balanced",
        "queue_blocks": 4,
        "actors": {},
        "memory": None,
    }


def test_a_new_figure_needs_its_producer_and_a_row(new: Figure, docs: Any, tmp_path: Path) -> None:
    # given a row of the table, and updates that produce the figure
    left = record_updates(RunDirectory(tmp_path), [0.25, 0.5, 0.125])

    # then it is in the records, reduced as its row says
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)[new.name] for line in lines] == [0.25, 0.5, 0.125]

    # in TensorBoard, and there on the page of its group
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars(new.name)] == [0.25, 0.5, 0.125]
    (layout,) = events.Tensors(CONFIG_SUMMARY_TAG)
    categories = Layout.FromString(layout.tensor_proto.string_val[0]).category
    (group,) = (c for c in categories if new.name in {chart.title for chart in c.chart})
    assert group.title == "Learning"

    # in the report: in the table of figures, and in the chart that the row names
    run = read_run(tmp_path)
    assert [new.name, "0.125", "0.292", "0.5", "0.125"] in figures_table(run, "").rows
    labels = [drawing.label for drawing in charts.draw_all(grouped([run]))]
    assert any("made up: from 12.5 to 50, at the end 12.5" in label for label in labels)

    # in impala-status
    assert "figures  made up 12 %" in as_text("test", status_of(left)).splitlines()

    # and on the page of figures
    assert f"| `{new.name}` | 0 to 1 | {MEANING} |" in docs.figures_tables().splitlines()


def test_numbers_of_an_environment_go_wherever_figures_go(tmp_path: Path) -> None:
    # given updates on episodes that tell of themselves, under names of the user's
    infos = [{"success": 0.25, "<b>\u0153": 3.0}, {"success": 0.75}]
    left = record_updates(RunDirectory(tmp_path), [0.5, 0.5], infos)

    # then they are in the records and in TensorBoard
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("episode_info:success") for line in lines] == [0.25, 0.75]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("episode_info:success")] == [0.25, 0.75]

    # in the report: in the table, and in a chart each, whose files have names of ours
    run = read_run(tmp_path)
    assert "episode_info:success" in [row[0] for row in figures_table(run, "").rows]
    drawn = {d.slug: d.label for d in charts.draw_all(grouped([run])) if "info" in d.slug}
    assert drawn.keys() == {"episode-info-1", "episode-info-2"}
    assert drawn["episode-info-1"].startswith("<b>\u0153. ")
    assert drawn["episode-info-2"].startswith("success. Over frames; from 0.25 to 0.75")
    assert all(map(is_slug, drawn))

    # and in impala-status
    text = as_text("test", status_of(left | {"episode_info:\x1b[2J": 1.0}))
    assert "infos    success 0.75, ?[2J 1" in text.splitlines()


def test_todays_figures_stand_in_the_rows_of_status_that_word_them(tmp_path: Path) -> None:
    left = record_updates(RunDirectory(tmp_path), [0.25])
    every = {name: 1.0 for name, figure in FIGURES.items() if figure.in_status}
    assert left.keys() - every.keys() == {"total_frames"}
    assert not any(
        line.startswith("figures") for line in as_text("test", status_of(every)).splitlines()
    )


def test_the_pages_are_as_the_script_writes_them(docs: Any) -> None:
    for file, name, write in docs.PARTS:
        page = (ROOT / file).read_text(encoding="utf-8")
        assert docs.rewritten(page, name, write()) == page, "run scripts/write_docs.py"


def test_the_page_of_what_was_measured_is_as_the_script_writes_it(docs: Any) -> None:
    # given a place for each table
    page = (ROOT / docs.MEASURED_PAGE).read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- /([\w-]+) -->", page)) == set(docs.measure.TABLES)

    # then those of which there are data are made of them
    for name, table in docs.measured_parts().items():
        assert docs.rewritten(page, name, table) == page, "run scripts/write_docs.py"


def test_a_page_without_marks_is_refused(docs: Any) -> None:
    with pytest.raises(ValueError, match="no marks for figures"):
        docs.rewritten("a page\n", "figures", "a part")


def test_the_table_says_how_figures_are_reduced() -> None:
    assert [reduction_of(name) for name in ("rho_min", "rho_max", "policy_lag_max", "entropy")] == [
        "min",
        "max",
        "max",
        "mean",
    ]
    assert reduction_of("of_another_version_min") == "min"


def test_every_figure_has_a_meaning_of_its_own_or_shares_a_row() -> None:
    meanings = [(row[0].unit, row[0].meaning) for row in rows()]
    assert len(set(meanings)) == len(meanings)
    assert all(meaning and not meaning.endswith(".") for _, meaning in meanings)


def test_each_quotient_of_the_logbook_is_a_figure() -> None:
    assert logbook_module.QUOTIENTS.keys() <= FIGURES.keys()


# Returns, wherever they are shown.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.04"),
        (0.0449, "0.045"),
        (-0.0042, "-0.0042"),
        (0.957, "0.96"),
        (1.0, "1.00"),
        (-1.25, "-1.25"),
        (9.87, "9.87"),
        (12.34, "12.3"),
        (-11.66, "-11.7"),
        (500.0, "500.0"),
        (12345.67, "12,345.7"),
        (0.0, "0.00"),
        (3e-7, "3e-07"),
        (None, "-"),
        (float("nan"), "-"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_return_is_shown_with_digits_that_tell_it_from_another(
    value: float | None, text: str
) -> None:
    assert shown_return(value) == text


def test_a_small_return_is_the_same_number_on_every_screen_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a run that ended with 0.04 of the 1.0 that it was to reach
    directory = RunDirectory(tmp_path)
    config = Config().replace({"env": "FrozenLake-v1", "stop_at_return": 1.0})
    record = {"time_s": 1.0, "frames": 640, "mean_return_100": 0.04, "frames_per_s": 640.0}
    record |= {"queue_blocks": 1, "policy_lag_mean": 1.0}
    directory.write_config("test", None, config)
    progress = Progress(directory, config)
    directory.metrics.write_text(json.dumps(record) + "\n")

    # when it is shown in the panel, in plain lines and at the end
    progress.update()
    panel = progress._panel()
    progress.conclude(0, None, {"status": "finished", "wall_s": 1.0, **record})
    progress._console.print(panel)

    # then
    printed = capsys.readouterr().out
    assert "return 0.04  lag" in printed
    assert "finished: mean return 0.04 over the last 100 episodes" in printed
    assert "0.04 of 1" in printed

    # and in the learner's log, in impala-status, in impala-eval and in the report
    assert ", return 0.04, " in logbook_module._line(record | {"game_frames": 640})
    assert "; return 0.04" in as_text("test", status_of(record))
    spec = make_spec("test", config, ObservationSpec((), "float32"), discrete(2))
    results = [EpisodeResult(value, 9, False) for value in (0.0, 0.08)]
    words = report_in_words(make_report(spec, 3, results, PlaySettings(True, 100, 0)))
    assert "return: mean 0.04, std 0.04, from 0.00 to 0.08; mean length 9.0" in words
    run = read_run(tmp_path)
    assert "mean return 0.04 over" in pages._ending(run)
    assert ("mean return", "0.04") in list(pages._keys(run))
