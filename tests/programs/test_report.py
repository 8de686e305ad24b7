"""impala-report: one page that needs nothing else, of whatever a run has left behind."""

import html
import json
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impala_redis.common.errors import EXIT_INTERRUPTED, RunDirectoryError
from impala_redis.common.records.figures import FIGURES
from impala_redis.common.records.history import Group, grouped, read_run
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.workers import report, stopping, train
from impala_redis.workers.reporting import charts, findings, pages
from impala_redis.workers.reporting.chart import Chart
from impala_redis.workers.reporting.gallery import SECTIONS
from impala_redis.workers.reporting.tables import figures_table
from impala_redis.workers.reporting.words import group_labels, is_slug, run_labels, short
from support import Programs

CHARTS = [chart for members in SECTIONS.values() for chart in members]
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
        **{f"{name}_share:{rank}": 0.25 for name in ("wait", "standby") for rank in (0, 1)},
    }
    wanted = {line.name for chart in CHARTS for line in chart.all_lines if "*" not in line.name}
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


def grouped_of(*run_dirs: Path) -> list[Group]:
    """The runs by their settings."""
    return grouped([read_run(path) for path in run_dirs])


class Asked(stopping.StopFlag):
    """Somebody has pressed Ctrl-C, or has not; no signal is waited for."""

    def __init__(self, stopped: bool) -> None:
        self._stopped = stopped


NEVER, AT_ONCE = Asked(False), Asked(True)


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


def test_a_page_says_with_whose_weights_a_run_began(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [figures(1), figures(2)], RESULT)
    assert "begun with the weights" not in str(Text(page_of(run)))
    RunDirectory(run).write_config("mine", "cartpole", Config(), init_from="runs/other")
    assert "begun with the weights of runs/other" in str(Text(page_of(run)))


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
    assert (
        output == f"report: run/report.html ({len(CHARTS)} charts, as PNGs in run/report-charts)\n"
    )

    # and every chart stands in it, named, and beside it as a picture
    page = (run / "report.html").read_text()
    text = str(Text(page))
    for chart in CHARTS:
        assert chart.title in text
        assert (run / "report-charts" / f"{chart.slug}.png").read_bytes().startswith(b"\x89PNG")
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
def test_without_a_folder_for_its_settings_matplotlib_gets_a_sentence(programs: Programs) -> None:
    # given an environment in which it finds no place that can be written
    write(programs.folder / "run", [figures(1)])
    (programs.folder / "matplotlib.py").write_text("raise OSError('a writable cache directory')")

    # when / then
    code, output = programs.run("impala-report", "run", PYTHONPATH=str(programs.folder))
    assert code == 10
    assert output.startswith("error: the charts need a folder for matplotlib's settings, ")
    assert output.endswith("; set MPLCONFIGDIR to one that can\n")


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
    assert train.write_report(directory, NEVER) is None
    assert "no report was written: the run in" in caplog.text
    assert "has no records yet" in caplog.text


@pytest.mark.processes
def test_a_report_is_not_waited_for_by_somebody_who_wants_to_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RunDirectory(write(tmp_path / "run", [figures(1)]))
    (tmp_path / "run" / "logs").mkdir()
    assert train.write_report(directory, AT_ONCE) is None
    assert "no report was written: interrupted; write it with: impala-report" in caplog.text
    assert not (tmp_path / "run" / "report.html").exists()


def test_ctrl_c_ends_a_report_between_two_charts(tmp_path: Path) -> None:
    # given two charts, and somebody who presses it while the first one is drawn
    run = read_run(write(tmp_path / "run", [{"frames": 5, "entropy": 1.0, "grad_norm": 1.0}]))
    asked: list[bool] = []

    # when / then
    with pytest.raises(SystemExit) as ended:
        report.drawn(grouped([run]), lambda: asked.append(True) is None)
    assert ended.value.code == EXIT_INTERRUPTED
    assert len(asked) == 1


def test_a_page_that_is_named_like_no_page_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a program that leaves this process's signals and log alone
    run = write(tmp_path / "run", [{"frames": 5, "entropy": 1.0}])
    monkeypatch.setattr(stopping, "StopFlag", lambda: NEVER)
    monkeypatch.setattr(stopping, "set_up_logging", lambda level, program: None)

    # when / then
    for name in ("metrics.jsonl", "page", "page.html.gz"):
        with pytest.raises(SystemExit) as ended:
            report.main([str(run), "--output", str(tmp_path / name)], standalone_mode=False)
        assert ended.value.code == 2
        sentence = f"error: --output must name a file that ends in .html, not {name!r}\n"
        assert capsys.readouterr().err == sentence
    assert list(tmp_path.iterdir()) == [run]


def test_an_older_reports_charts_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    # given a folder with two charts of an earlier report, and files of somebody else's
    folder = tmp_path / "x-charts"
    folder.mkdir()
    ours = ["entropy.png", "actions-pi-mean-11.png"]
    theirs = ["entropy.svg", "score-board.png", "actions-pi-mean-x.png", "actions-pi-mean-.png"]
    for name in ours + theirs:
        (folder / name).touch()

    # when
    report.write(tmp_path / "x.html", "", [])

    # then
    assert {path.name for path in folder.iterdir()} == set(theirs)


def test_the_page_of_several_runs_lies_beside_them(tmp_path: Path) -> None:
    a, b = tmp_path / "runs" / "a", tmp_path / "runs" / "deeper" / "b"
    assert report.default_page([a]) == a / "report.html"
    page = report.default_page([a, b])
    assert page.resolve() == tmp_path / "runs" / "overlay.html"


def test_a_run_that_is_named_twice_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path / "run", [figures(1)])
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    named = [Path("run"), other, run, Path("link"), other]
    assert report.different(named) == [Path("run"), other]


def test_a_page_that_cannot_be_written_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot be written to .*name another .*--output"):
        report.write(tmp_path / "file" / "page.html", "", [])


def test_a_killed_runs_report_still_works_and_says_what_is_missing(tmp_path: Path) -> None:
    text = str(Text(page_of(write(tmp_path / "run", [{"frames": 5, "entropy": 0.5}]))))
    assert "Not ended: killed, or still running" in text
    assert "1 line of metrics.jsonl could not be read" in text
    assert "Entropy of the target policy" in text


def test_any_json_in_a_runs_files_makes_a_page(tmp_path: Path) -> None:
    # given half of a letter wherever a text may stand, and nesting without end
    half = json.loads('"\\ud800"')
    result = {"status": half, "error": half, "versions": {half: half, "deep": {}, "many": [half]}}
    run = write(tmp_path / "run", [{"frames": 5, "entropy": 0.5, half: 1.0}], result)

    # when / then
    report.write(tmp_path / "page.html", page_of(run), [])
    assert "Entropy" in (tmp_path / "page.html").read_text()
    RunDirectory(run).result.write_text('{"versions": ' + "[" * 100_000)
    assert "Not ended" in page_of(run)


def test_a_figures_name_never_becomes_a_path(tmp_path: Path) -> None:
    # given probabilities of actions that are no numbers
    odd = ["/../../pwned", "\0", "x", "", "12345", "٣"]
    record = {"frames": 5} | {f"pi_mean_{name}": 0.5 for name in [*odd, "0", "11"]}
    runs = [write(tmp_path / f"{rate}", [record], learning_rate=rate) for rate in (0.1, 0.2)]

    # when / then
    drawings = list(charts.draw_all(grouped([read_run(path) for path in runs])))
    assert [one.slug for one in drawings] == ["actions-pi-mean-0", "actions-pi-mean-11"]
    assert all(is_slug(one.slug) for one in drawings)


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
    # given updates of 10 ms: 1 waiting, 4 forward, 4 backward, and 3 ms of a processor beside them,
    # which took 9 ms by the clock
    record = {
        "wait_share": 0.1,
        "queue_blocks": 3,
        "wait_s": 0.001,
        "forward_s": 0.004,
        "backward_s": 0.004,
        "batch_s": 0.005,
        "publish_s": 0.008,
        "feeder_cpu_s": 0.002,
        "publisher_cpu_s": 0.001,
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
    assert sum(time.beside.values()) == pytest.approx(0.009)  # every other version is published
    assert "An update took 10 ms" in why
    assert "other threads computed for 3 ms" in why
    assert "an update would have taken at least 12 ms, 20 % more" in why
    assert "at least 2 ms of the work (67 %) was hidden" in why
    assert "an actor played 60,000 frames/s on average, and did not wait" in why


def on_a_gpu(i: int, **more: float) -> dict[str, float]:
    """A record of updates of 10 ms, on a GPU that computes for 4 of them, each as one graph."""
    return {
        "time_s": 0.1 * i,
        "frames": 6400.0 * i,
        "updates": 10.0 * i,
        "updates_per_s": 100.0,
        "blocks_produced": 100.0 * i,
        "blocks_dropped": 0.0,
        "wait_share": 0.1,
        "wait_s": 0.001,
        "device_busy_share": 0.4,
        "device_memory_bytes": 1.3e9,
        "transfer_s": 0.001,
        "graph_s": 0.003,
        "weights_s": 0.0005,
        "batch_s": 0.002,
        "feeder_cpu_s": 0.002,
    } | more


def test_an_update_that_is_one_graph_has_its_stages_without_a_hole(tmp_path: Path) -> None:
    # given a run on a GPU, without forward_s, backward_s and optimizer_s
    run = write(tmp_path / "run", [on_a_gpu(i) for i in range(1, 5)])

    # when
    time = findings.account(read_run(run))
    page = page_of(run)
    said = said_of(run)

    # then the device's stages and its pauses are the whole, and what else went on stands beside
    assert time is not None
    assert time.stages == {
        "moving the batch to the device": pytest.approx(0.001),
        "forward, backward and optimizer, as one CUDA graph": pytest.approx(0.003),
        "the rest: the device has nothing to compute": pytest.approx(0.006),
    }
    assert sum(time.stages.values()) == pytest.approx(time.whole_s)
    assert time.beside["main thread: waiting for a batch"] == pytest.approx(0.001)
    assert time.beside["main thread: copying the weights out"] == pytest.approx(0.0005)
    assert findings.why_it_is_fast(read_run(run), time)[0].startswith(
        "An update took 10 ms from one to the next."
    )

    # and the page is told what binds, and shows no number that is none
    held_up = said["findings"][0]["sentences"]
    assert held_up[0].startswith("Host-bound: the learner waits 10 % and its device is busy 40 %")
    assert held_up[1] == (
        "The stage that binds: host, 50.0 % of the learner's time (the device waits for the "
        "learner's main thread)."
    )
    assert dict(said["keys"])["device busy"] == "40.0 %"
    assert dict(said["keys"])["GPU memory"] == "1,300 MB"
    assert not re.search(r"\bnan\b", str(Text(page)), re.IGNORECASE)
    assert "forward" not in {row[0] for table in said["figures"] for row in table.rows}


def test_updates_before_the_graph_was_made_count_as_no_stage_of_it(tmp_path: Path) -> None:
    # given records of which the first have the stages of single operations
    eager = {"forward_s": 0.02, "backward_s": 0.03, "optimizer_s": 0.01, "graph_s": math.nan}
    records = [on_a_gpu(i, **(eager if i < 3 else {})) for i in range(1, 6)]
    run = write(tmp_path / "run", [{n: v for n, v in r.items() if v == v} for r in records])

    # when
    time = findings.account(read_run(run))

    # then
    assert time is not None
    assert sum(time.stages.values()) == pytest.approx(time.whole_s)
    assert not any(name == "backward" for name in time.stages)
    assert "nan" not in str(Text(page_of(run))).lower().split()


def test_a_gpu_without_a_graph_has_each_of_its_stages(tmp_path: Path) -> None:
    eager = {"forward_s": 0.001, "backward_s": 0.002, "optimizer_s": 0.0005}
    records = [on_a_gpu(i, **eager) for i in range(1, 5)]
    for record in records:
        del record["graph_s"]
    time = findings.account(read_run(write(tmp_path / "run", records)))
    assert time is not None
    assert list(time.stages) == [
        "moving the batch to the device",
        "forward: network and loss",
        "backward",
        "optimizer",
        "the rest: the device has nothing to compute",
    ]


def test_a_run_of_graphs_is_laid_over_one_of_single_operations(tmp_path: Path) -> None:
    # given one run on a GPU and one on a CPU
    eager = {"forward_s": 0.001, "backward_s": 0.002, "optimizer_s": 0.0005, "wait_s": 0.001}
    gpu = write(tmp_path / "gpu", [on_a_gpu(i) for i in range(1, 5)], RESULT)
    records = [eager | {"time_s": 0.1 * i, "frames": i, "updates": i} for i in range(1, 5)]
    cpu = write(tmp_path / "cpu", records, RESULT, learning_rate=0.002)

    # when
    page = str(Text(page_of(gpu, cpu)))

    # then each is drawn in the charts of its own stages
    assert "nan" not in page.lower().split()
    slugs = [drawing.slug for drawing in charts.draw_all(grouped_of(gpu, cpu))]
    assert {"stages-graph-s", "stages-forward-s", "stages-backward-s"} <= set(slugs)
    assert all(map(is_slug, slugs))


def test_a_learner_that_waits_longer_than_its_threads_work_hides_nothing(tmp_path: Path) -> None:
    record = {"wait_s": 0.05, "forward_s": 0.01, "backward_s": 0.01, "feeder_cpu_s": 0.001}
    records = [record | {"time_s": 0.1 * i, "updates": i} for i in range(1, 4)]
    run = read_run(write(tmp_path / "run", records))
    why = " ".join(findings.why_it_is_fast(run, findings.account(run)))
    assert "blocks came late" in why
    assert "hidden" not in why


def test_time_by_the_clock_alone_shows_nothing_hidden(tmp_path: Path) -> None:
    record = {"wait_s": 0.001, "forward_s": 0.01, "backward_s": 0.01, "batch_s": 0.05}
    records = [record | {"time_s": 0.1 * i, "updates": i} for i in range(1, 4)]
    run = read_run(write(tmp_path / "run", records))
    assert findings.why_it_is_fast(run, findings.account(run)) == []


def test_blocks_that_earlier_runs_dropped_and_books_that_were_lost_do_not_count(
    tmp_path: Path,
) -> None:
    # given books that were not empty, and that the server forgets after the second record
    books = [(1000, 900), (1100, 910), (20, 0), (120, 30)]
    records = [{"blocks_produced": p, "blocks_dropped": d} for p, d in books]
    run = read_run(write(tmp_path / "run", records))
    assert findings.dropped_share(run) == pytest.approx(40 / 200)


@pytest.mark.parametrize(("share", "drawn", "advised"), [(1.0, 0, 0), (0.5, 1, 0), (0.49, 1, 1)])
def test_steps_that_are_left_out_are_drawn_and_told(
    tmp_path: Path, share: float, drawn: int, advised: int
) -> None:
    records = [{"frames": i, "updates": i, "learned_share": share} for i in (1, 2)]
    text = str(Text(page_of(write(tmp_path / "run", records))))
    assert text.count("Monte Carlo returns leave out the steps") == drawn
    assert text.count("A longer --unroll-length leaves out fewer") == advised


def test_what_was_refused_is_told_with_its_share_and_cause(tmp_path: Path) -> None:
    # given a run that began again: its counters too
    refused = [(6, 0), (90, 10), (20, 0)]
    records: list[dict[str, Any]] = [
        {
            "frames": number,
            "updates": number,
            "time_s": float(number),
            "columns_refused": sum(counts),
            "refused_observations": counts[0],
            "refused_rewards": counts[1],
            "refused_share": 0.25,
            "columns_stale": 3,
        }
        for number, counts in enumerate(refused, 1)
    ]

    # when / then by its records while it runs
    sentence = (
        "120 columns (trajectories of one environment) were refused, {share} % of those that came, "
        "most of them because observations are not finite or out of range."
    )
    text = str(Text(page_of(write(tmp_path / "runs", records))))
    assert sentence.format(share="25.0") in text
    assert "3 columns came too late for --max-policy-lag" in text

    # and by its result once it has ended
    result = RESULT | {"refused": {"refused_share": 0.5}}
    text = str(Text(page_of(write(tmp_path / "ended", records, result))))
    assert sentence.format(share="50.0") in text
    assert "columns refused 50.0 %" in text


def test_a_run_that_refused_all_is_not_advised_to_add_actors(tmp_path: Path) -> None:
    records = [
        {
            "frames": 0,
            "updates": 0,
            "time_s": 5.0 * number,
            "wait_share": 1.0,
            "dropped_share": 0.0,
            "refused_share": 1.0,
            "actors": 1,
        }
        for number in (1, 2)
    ]
    limits = findings.what_held_it_up(read_run(write(tmp_path / "run", records)))
    assert limits[0].startswith("The learner waits 100 % and refuses 100 % of the blocks; ")


@pytest.mark.parametrize("correction", ["vtrace", "none"])
def test_only_v_trace_is_said_to_clip(tmp_path: Path, correction: str) -> None:
    record = {"frames": 5, "rho_clipped_share": 0.5}
    run = write(tmp_path / "run", [record], correction=correction)
    text = str(Text(page_of(run)))
    assert ("steps clipped" in text) == (correction == "vtrace")


def test_runs_of_unknown_settings_are_said_to_share_nothing(tmp_path: Path) -> None:
    # given a run with its settings, and two that have lost theirs
    runs = [write(tmp_path / name, [{"frames": 1, "entropy": 1.0}]) for name in ("a", "b", "c")]
    for path in runs[1:]:
        RunDirectory(path).config.unlink()

    # when
    groups = grouped([read_run(path) for path in runs])
    text = str(Text(page_of(*runs)))

    # then
    assert [len(group.runs) for group in groups] == [1, 1, 1]
    assert "1 run of known settings; 2 runs of unknown settings." in text
    assert group_labels(groups[1:]) == ["1: b", "2: c"]
    assert " none " not in text


def test_runs_and_choices_of_settings_have_labels_of_their_own(tmp_path: Path) -> None:
    # given settings that differ behind the 52nd letter, in directories of the same names
    runs = []
    for number in (1, 2):
        env = "an_environment_with_a_very_long_name_from_a_module:" + f"Env{number}-v0"
        path = write(tmp_path / str(number) / "x" / "run", [{"frames": 1}], env=env)
        runs.append(read_run(path))

    # when / then
    assert run_labels(runs) == ["1/x/run", "2/x/run"]
    assert group_labels(grouped(runs)) == ["1: 1/x/run", "2: 2/x/run"]


def test_every_figure_that_is_drawn_stands_in_the_table_of_figures() -> None:
    drawn = {line.name for chart in CHARTS for line in chart.all_lines}
    assert drawn
    assert drawn - FIGURES.keys() == set()
    assert {figure.chart for figure in FIGURES.values()} - {chart.slug for chart in CHARTS} == {""}


def test_every_chart_has_a_name_of_its_own_and_a_caption() -> None:
    assert len({chart.slug for chart in CHARTS}) == len(CHARTS)
    for chart in CHARTS:
        assert isinstance(chart, Chart) and chart.lines
        assert re.fullmatch(r"[a-z-]+", chart.slug)
        assert chart.says.endswith(".")


# What is drawn.

Draw = Callable[..., dict[str, Any]]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """The figures of runs as matplotlib has them, by the label that tells what they show."""
    figures: list[Any] = []

    def kept(figure: Any) -> str:
        figures.append(figure)
        return ""

    monkeypatch.setattr(charts.canvas, "as_svg", kept)
    monkeypatch.setattr(charts.canvas, "as_png", lambda figure: b"")

    def drawn(*run_dirs: Path) -> dict[str, Any]:
        figures.clear()
        drawings = list(charts.draw_all(grouped_of(*run_dirs)))
        return {one.label: figure for one, figure in zip(drawings, figures, strict=True)}

    return drawn


def test_seconds_are_drawn_and_told_in_the_charts_unit(draw: Draw, tmp_path: Path) -> None:
    # given
    records = [{"time_s": i, "queue_wait_s": 0.002 * i} for i in (1, 2)]

    # when
    ((label, figure),) = draw(write(tmp_path / "run", records)).items()

    # then
    assert label == "Queue wait, ms. Over time (s); from 2 to 4, at the end 4."
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == [2.0, 4.0]


def test_an_overlay_is_in_the_charts_unit_too(draw: Draw, tmp_path: Path) -> None:
    # given two runs of one choice of settings, and one of another
    choices = [(0.001, 1, 0.002), (0.001, 2, 0.004), (0.002, 1, 0.008)]
    runs = [
        write(
            tmp_path / f"{rate}-{seed}",
            [{"time_s": i, "queue_wait_s": wait_s} for i in (1, 2)],
            learning_rate=rate,
            seed=seed,
        )
        for rate, seed, wait_s in choices
    ]

    # when
    ((label, figure),) = draw(*runs).items()

    # then the band of the first is in milliseconds, as is its line
    assert "learning_rate 0.001 (2 runs): from 3 to 3, at the end 3;" in label
    assert "learning_rate 0.002: from 8 to 8, at the end 8." in label
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((2.0, 4.0))


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("baseline_loss", [1.0, 31.0], "log"),
        ("baseline_loss", [1.0, 30.0], "linear"),
        ("baseline_loss", [0.0, 100.0], "linear"),
        ("baseline_loss", [-1.0, 100.0], "linear"),
        ("entropy", [1.0, 1000.0], "linear"),
    ],
)
def test_values_that_span_more_than_a_factor_of_30_are_drawn_on_a_logarithmic_scale(
    draw: Draw, tmp_path: Path, name: str, values: list[float], scale: str
) -> None:
    records = [{"frames": i, name: value} for i, value in enumerate(values)]
    (figure,) = draw(write(tmp_path / "run", records)).values()
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    if scale == "linear" and min(values) >= 0:
        assert axes.get_ylim()[0] == 0.0


def test_the_setting_that_bounds_a_figure_is_drawn(draw: Draw, tmp_path: Path) -> None:
    # given runs that clip at the same norm, and one that clips at another
    records = [{"frames": i, "grad_norm": 10.0 * i} for i in (1, 2)]
    for name, norm in {"a": 25.0, "b": 25.0, "c": 12.0}.items():
        write(tmp_path / name, records, grad_norm_clipping=norm, seed=ord(name))

    # then a line lies at a norm that is common to the runs
    for others in ((), ("b",)):
        (figure,) = draw(*(tmp_path / name for name in ("a", *others))).values()
        limit = figure.axes[0].lines[-1]
        assert (limit.get_label(), list(limit.get_ydata())) == ("clipped at 25", [25.0, 25.0])
    (figure,) = draw(tmp_path / "a", tmp_path / "c").values()
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[10.0, 20.0]] * 2
    assert not any("clipped at" in line.get_label() for line in figure.axes[0].lines)


def test_actions_are_in_the_order_of_their_numbers(draw: Draw, tmp_path: Path) -> None:
    # given more actions than are drawn, not in order
    numbers = [10, 2, 0, 13, 1, *range(3, 10), 11, 12]
    record = {"frames": 1} | {f"pi_mean_{number}": 0.05 for number in numbers}

    # when / then
    (figure,) = draw(write(tmp_path / "run", [record])).values()
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == [f"action {number}" for number in range(charts.NUMBERED)]


def test_the_stages_of_an_update_are_stacked(draw: Draw, tmp_path: Path) -> None:
    # given
    record = {"wait_s": 0.001, "forward_s": 0.002, "backward_s": 0.004}

    # when
    figures = draw(write(tmp_path / "run", [record | {"time_s": i} for i in (1, 2)]))

    # then each lies on the one before
    ((label, figure),) = figures.items()
    assert label.startswith("An update's time, by stage, ms. Over time (s); wait: from 1 to 1")
    spans = []
    for area in figure.axes[0].collections:
        heights = area.get_paths()[0].vertices[:, 1]
        spans.append((heights.min(), heights.max()))
    assert np.array(spans) == pytest.approx(np.array([(0, 1), (1, 3), (3, 7)]))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1.5e6, "1.5M"),
        (2e4, "20k"),
        (9999, "9999"),
        (-2e4, "-20k"),
        (1e6, "1M"),
        (3e9, "3G"),
        (1e13, "1e+13"),
        (0.0015, "0.0015"),
        (0, "0"),
    ],
)
def test_a_number_is_told_as_short_as_it_can_be(number: float, words: str) -> None:
    assert short(number) == words


# What the page says, before it is a page.


def said_of(*run_dirs: Path) -> dict[str, Any]:
    return pages.page(grouped_of(*run_dirs), [])


def test_a_killed_runs_key_figures_are_those_of_its_records(tmp_path: Path) -> None:
    records = [{"frames": 100, "time_s": 1.0}, {"frames": 64_000, "time_s": 3.5}]
    keys = dict(said_of(write(tmp_path / "run", records))["keys"])
    assert keys == {"frames": "64,000", "wall time": "3.5 s"}


def test_an_ended_runs_wall_time_is_as_long_as_the_user_waited(tmp_path: Path) -> None:
    records = [{"frames": 100, "time_s": 1.0}]
    keys = dict(said_of(write(tmp_path / "run", records, RESULT | {"wall_s": 9.0}))["keys"])
    assert (keys["wall time"], keys["frames"]) == ("9.0 s", "64,000")


def test_the_goal_and_the_error_stand_beside_how_the_run_ended(tmp_path: Path) -> None:
    goal = write(tmp_path / "goal", [{"frames": 1}], RESULT, stop_at_return=475.0)
    ended = "Solved, mean return 480.2 over the last 100 episodes"
    assert said_of(goal)["status"] == ended + " (solved at 475)"
    failed = write(tmp_path / "failed", [{"frames": 1}], {"status": "failed", "error": "no space"})
    assert said_of(failed)["status"] == "Failed. Error: no space"


def test_the_rows_of_an_updates_time_are_its_parts(tmp_path: Path) -> None:
    # given updates of 10 ms
    record = {"wait_s": 0.001, "forward_s": 0.004, "backward_s": 0.0025, "batch_s": 0.02}
    records = [record | {"time_s": 0.1 * i, "updates": 10 * i} for i in range(1, 5)]

    # when
    *_, finding = said_of(write(tmp_path / "run", records))["findings"]

    # then
    assert finding["title"] == "Where an update's time went"
    sentences = [
        (row["ms"], row["share"], row["width"], row["beside"], row["sum"])
        for row in finding["times"]
    ]
    assert sentences == [
        ("1.00", "10 %", 10.0, False, False),
        ("4.00", "40 %", 40.0, False, False),
        ("2.50", "25 %", 25.0, False, False),
        ("2.50", "25 %", 25.0, False, False),
        ("10.00", "100 %", 0, False, True),
        ("20.00", "200 %", 100, True, False),
    ]


def test_a_figures_row_has_its_least_mean_greatest_and_last(tmp_path: Path) -> None:
    records = [{"unix_s": 1.0, "time_s": 1.0, "loss": value} for value in (1.0, 6000.0, 2.0)]
    table = figures_table(read_run(write(tmp_path / "run", records)), "Figures.")
    assert table.head == ["figure", "min", "mean", "max", "last"]
    assert table.rows == [["loss", "1", "2,001", "6,000", "2"]]


def test_an_intake_that_waits_for_replies_makes_the_link_the_bottleneck(tmp_path: Path) -> None:
    record = {"wait_share": 0.6, "dropped_share": 0.3}
    sentences = {}
    for name, more in {"link": {"claim_share": 0.9}, "intake": {}}.items():
        records = [record | more | {"time_s": i} for i in (1, 2)]
        sentences[name] = findings.what_held_it_up(read_run(write(tmp_path / name, records)))[0]
    assert sentences["link"].startswith("Link-bound: the learner waits 60 % while the list is full")
    assert "its intake waits 90 % for Redis" in sentences["link"]
    assert sentences["intake"].startswith("Intake-bound: the learner waits 60 %")


def test_without_counters_the_recorded_shares_tell_what_was_dropped(tmp_path: Path) -> None:
    # given shares for 1 s and for 3 s, and counters that stand still
    counters = {"blocks_produced": 7, "blocks_dropped": 7}
    shares = [(0, 0.9), (1, 0.4), (4, 0.2)]
    for name, more in {"none": {}, "still": counters}.items():
        records = [{"time_s": at, "dropped_share": share} | more for at, share in shares]
        run = read_run(write(tmp_path / name, records))

        # when / then
        assert findings.dropped_share(run) == pytest.approx((0.4 + 3 * 0.2) / 4)
    nothing = read_run(write(tmp_path / "nothing", [{"frames": 1}]))
    assert findings.dropped_share(nothing) is None


@pytest.mark.parametrize(
    ("correction", "words"),
    [
        ("vtrace", ", which V-trace corrects for."),
        ("one_step", ", which the policy gradient alone is corrected for."),
        ("epsilon", ", and nothing corrects for it."),
        ("none", ", and nothing corrects for it."),
    ],
)
def test_what_corrects_for_the_lag_is_told(tmp_path: Path, correction: str, words: str) -> None:
    record = {"frames": 5, "policy_lag_mean": 2.0, "policy_lag_s_mean": 0.05}
    path = write(tmp_path / "run", [record], correction=correction)
    lag = "The price is a policy lag of 2.0 versions (50 ms) on average"
    assert findings.why_it_is_fast(read_run(path), None) == [lag + words]
    RunDirectory(path).config.unlink()
    assert findings.why_it_is_fast(read_run(path), None) == [lag + "."]
