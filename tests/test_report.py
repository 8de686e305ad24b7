"""impala-report: one page that needs nothing else, of whatever a run has left behind."""

import html
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.errors import RunDirectoryError
from common.history import grouped, read_run
from common.rundir import RunDirectory
from support import Programs
from workers import report, train
from workers.reporting import charts, findings
from workers.reporting.gallery import CHARTS, Chart

RESULT = {
    "status": "solved",
    "frames": 64_000,
    "mean_return_100": 480.25,
    "wall_s": 3.5,
    "frames_per_s": 20_000,
    "seed": 0,
    "versions": {"torch": "2.13.0"},
}


def figures(number: int) -> dict[str, Any]:
    """A record with every figure that a learner writes."""
    updates, time_s = 10 * number, 0.1 * number
    record: dict[str, Any] = {
        "unix_s": 1.8e9 + time_s,
        "time_s": time_s,
        "frames": 640 * updates,
        "updates": updates,
        "episodes": 20 * number,
        "mean_return_100": 20.0 * number,
        "published_per_s": 50.0,
        "queue_blocks": number % 5,
        "policy_loss": math.sin(number),
        "blocks_produced": 12 * updates,
        "blocks_dropped": 3 * updates,
        "actors": 2,
        "episode_returns": [10.0 * number, 30.0 * number],
        "pi_mean_0": 0.4,
        "pi_mean_1": 0.6,
    }
    wanted = {line.name for chart in CHARTS for line in chart.lines if "*" not in line.name}
    wanted |= {name for chart in CHARTS for name in chart.band or ()}
    return dict.fromkeys(sorted(wanted), 0.001 * (1 + number % 3)) | record


def write(
    path: Path,
    records: Sequence[dict[str, Any]],
    result: dict[str, Any] | None = None,
    name: str = "mine",
    **changed: Any,
) -> Path:
    """A run directory, of a run that was killed unless there is a result."""
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    directory.write_config(name, "cartpole", Config().replace(changed))
    lines = "".join(json.dumps(record) + "\n" for record in records)
    directory.metrics.write_text(lines + ("" if result else '{"unix_s": 1.8e9, "ti'))
    if result:
        directory.write_result(result)
    return path


def page_of(*run_dirs: Path) -> str:
    """The page, made in this process."""
    groups = grouped([read_run(path) for path in run_dirs])
    return report.rendered(groups, report.drawn(groups, lambda: False))


class Text(HTMLParser):
    """What a reader sees, and which tags there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.processes
def test_a_run_becomes_one_page_with_every_chart_and_pngs_beside_it(programs: Programs) -> None:
    # given a run with every figure, and a home in which nothing can be written
    run = write(programs.folder / "run", [figures(i) for i in range(1, 11)], RESULT)

    # when
    code, output = programs.run(
        "impala-report",
        "run",
        HOME="/dev/null",
        MPLBACKEND="no such backend",
        PYTHONWARNINGS="error",
    )

    # then it says where the page is, and nothing else
    assert code == 0, output
    assert output == f"report: run/report.html ({len(CHARTS)} charts, as PNGs in run/report)\n"

    # and every chart stands in it, named, and beside it as a picture
    page = (run / "report.html").read_text()
    text = str(Text(page))
    for chart in CHARTS:
        assert chart.title in text
        assert (run / "report" / f"{chart.slug}.png").read_bytes().startswith(b"\x89PNG")
    labels = [tag[1]["aria-label"] for tag in Text(page).tags if tag[1].get("role") == "img"]
    assert len(labels) == len(CHARTS)

    # and it tells how the run ended and what it was
    assert "Solved, mean return 480.2 over the last 100 episodes" in text
    assert "preset cartpole, seed 0, begun 2027-01-15 08:00 UTC torch 2.13.0" in text

    # and it asks nothing of a network, and runs nothing
    assert not {"script", "img", "iframe", "object", "embed"} & {tag for tag, _ in Text(page).tags}
    for tag, attributes in Text(page).tags:
        assert not {"src", "srcset", "onload"} & set(attributes), tag
        assert str(attributes.get("href") or "#").startswith(("#", "data:,")), tag
    assert not re.search(r"https?:|//|@import|url\((?!#)", page)
    assert len(page) < 1_500_000


@pytest.mark.processes
def test_a_directory_without_a_run_is_refused_with_its_own_code(programs: Programs) -> None:
    code, output = programs.run("impala-report", "nowhere")
    assert (code, output) == (
        19,
        "error: there is no directory nowhere; name one that holds a run\n",
    )


@pytest.mark.processes
def test_without_the_extra_the_command_that_installs_it_is_named(programs: Programs) -> None:
    # given an environment in which matplotlib cannot be imported
    write(programs.folder / "run", [figures(1)])
    missing = "raise ModuleNotFoundError('No module', name='matplotlib')"
    (programs.folder / "matplotlib.py").write_text(missing)

    # when / then
    code, output = programs.run("impala-report", "run", PYTHONPATH=str(programs.folder))
    assert code == 2
    assert output == (
        "error: a report needs matplotlib, which is not installed; run: pip install "
        '"impala-redis[report]" (in a checkout: scripts/setup.sh report)\n'
    )


@pytest.mark.processes
def test_a_training_ends_with_its_report(programs: Programs) -> None:
    # when
    options = ("--preset", "cartpole", "--total-frames", "5000", "--run-dir", "run")
    code, output = programs.run("impala-train", *options, "--report")

    # then
    assert code == 0, output
    assert output.endswith("report:        run/report.html\n")
    assert "Finished" in (programs.folder / "run" / "report.html").read_text()


@pytest.mark.processes
def test_a_report_that_fails_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given a run of which nothing was recorded
    directory = RunDirectory(write(tmp_path / "run", []))
    (tmp_path / "run" / "logs").mkdir()

    # when / then
    assert train.write_report(directory) is None
    assert "no report was written: the run in" in caplog.text
    assert "has no records yet" in caplog.text


def test_a_page_that_cannot_be_written_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot be written to .*name another .*--output"):
        report.write(tmp_path / "file" / "page.html", "", [])


def test_a_killed_runs_report_still_works_and_says_what_is_missing(tmp_path: Path) -> None:
    text = str(Text(page_of(write(tmp_path / "run", [{"frames": 5, "entropy": 0.5}]))))
    assert "Not ended: killed, or still running" in text
    assert "1 line of metrics.jsonl could not be read" in text
    assert "Entropy of the target policy" in text


def test_what_has_no_figures_is_neither_drawn_nor_told(tmp_path: Path) -> None:
    text = str(Text(page_of(write(tmp_path / "run", [{"frames": 5, "entropy": 0.5}]))))
    assert "Critic loss" not in text
    assert "What held it up" not in text
    assert "update's time" not in text
    assert "nan" not in text.lower()


def test_records_without_anything_to_draw_give_a_page_all_the_same(tmp_path: Path) -> None:
    text = str(Text(page_of(write(tmp_path / "run", [{"updates": "x"}, {"entropy": 1.0}]))))
    assert "Not ended" in text


@pytest.mark.parametrize("values", [[1e99, -1e99], [0.0, 0.0], [1e-300, 1e300], [5.0]])
def test_odd_numbers_are_drawn(tmp_path: Path, values: list[float]) -> None:
    records = [{"frames": i, "baseline_loss": value} for i, value in enumerate(values, 1)]
    assert "Critic loss" in page_of(write(tmp_path / "run", records))


def test_names_from_files_are_text_and_nothing_more(tmp_path: Path) -> None:
    # given a run whose every name is an attack, or a formula that would not parse
    attack = "<script>alert(1)</script>$\\frac{$"
    runs = []
    for number in (1, 2):
        records = [{"frames": 5, attack: 1.0, "entropy": 0.5, f"pi_mean_{attack}": 0.5}]
        result = RESULT | {"status": attack, "error": attack, "versions": {attack: attack}}
        path = write(tmp_path / f"{number}<b>", records, result, env=f"{attack}{number}")
        config = RunDirectory(path).config
        config.write_text(config.read_text().replace('name = "mine"', f"name = '{attack}'"))
        runs.append(path)

    # when / then: alone, and in the legends of an overlay
    for page in (page_of(runs[0]), page_of(*runs)):
        assert "script" not in {tag for tag, _ in Text(page).tags}
        assert "b" not in {tag for tag, _ in Text(page).tags}
        assert attack in html.unescape(page)


def test_runs_of_the_same_settings_are_drawn_as_their_mean_and_spread(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / str(seed), [{"frames": f, "entropy": seed} for f in (1, 9)], seed=seed)
        for seed in (1, 3)
    ]
    text = str(Text(page_of(*runs)))
    assert "2 runs of the same settings" in text
    assert "bands reach from the least to the greatest" in text
    (drawing,) = charts.draw_all(grouped([read_run(path) for path in runs]))
    assert drawing.label.endswith("from 2 to 2, at the end 2.")


def test_runs_of_other_settings_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    # given
    runs = [
        write(
            tmp_path / str(rate), [{"frames": 1, "rho_mean": 1, "rho_max": 2}], learning_rate=rate
        )
        for rate in (0.001, 0.002)
    ]

    # when
    text = str(Text(page_of(*runs)))

    # then each figure has a chart of its own, with a line for each choice
    assert "2 runs in 2 choices of settings, which differ in learning_rate." in text
    for title in ("Importance ratio per batch: mean", "Importance ratio per batch: max"):
        assert title in text
    assert "learning_rate 0.001" in text and "learning_rate 0.002" in text
    assert "0.001 0.001 0 not ended: killed, or still running" in text


def test_the_words_name_what_limited_the_run_and_where_the_time_went(tmp_path: Path) -> None:
    # given updates of 10 ms: 1 waiting, 4 forward, 4 backward, and 3 ms beside them
    record = {
        "wait_share": 0.1,
        "queue_blocks": 3,
        "wait_s": 0.001,
        "forward_s": 0.004,
        "backward_s": 0.004,
        "batch_s": 0.001,
        "publish_s": 0.004,
        "published_per_s": 50.0,
        "actor_frames_per_s_mean": 60_000,
    }
    records = [
        record
        | {
            "time_s": 0.1 * i,
            "updates": 10 * i,
            "blocks_produced": 100 * i,
            "blocks_dropped": 38 * i,
        }
        for i in range(1, 5)
    ]
    run = read_run(write(tmp_path / "run", records))

    # when
    time = findings.account(run)
    held_up = " ".join(findings.what_held_it_up(run))
    why = " ".join(findings.why_it_is_fast(run, time))

    # then
    assert "Learner-bound: actors are dropping 38 %" in held_up
    assert "without a batch for 10.0 % of its time" in held_up
    assert time is not None
    assert time.whole_s == pytest.approx(0.010)
    assert sum(time.stages.values()) == pytest.approx(time.whole_s)
    assert time.beside_s == pytest.approx(0.003)  # every other version is published
    assert "An update took 10 ms" in why
    assert "One after the other, all of it would have taken 12 ms, 20 % more" in why
    assert "at least 2 ms of that work (67 %) was hidden" in why
    assert "an actor played 60,000 frames/s on average, and did not wait" in why


def test_a_learner_that_waits_longer_than_its_threads_work_hides_nothing(tmp_path: Path) -> None:
    record = {"wait_s": 0.05, "forward_s": 0.01, "backward_s": 0.01, "batch_s": 0.001}
    records = [record | {"time_s": 0.1 * i, "updates": i} for i in range(1, 4)]
    run = read_run(write(tmp_path / "run", records))
    why = " ".join(findings.why_it_is_fast(run, findings.account(run)))
    assert "blocks came late" in why
    assert "hidden" not in why


def test_every_chart_has_a_name_of_its_own_and_a_caption() -> None:
    assert len({chart.slug for chart in CHARTS}) == len(CHARTS)
    for chart in CHARTS:
        assert isinstance(chart, Chart) and chart.lines
        assert re.fullmatch(r"[a-z-]+", chart.slug)
        assert chart.says.endswith(".")
