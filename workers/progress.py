"""How impala-train shows a run: a live panel in a terminal, plain lines anywhere else.

All it knows it reads from the run directory, where the learner writes.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from impala_redis.common.errors import EXIT_INTERRUPTED
from impala_redis.common.files import open_to_read
from impala_redis.common.records.refusals import in_words
from impala_redis.common.records.returns import of_episodes, shown_return
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.server.address import cli_command, without_password
from impala_redis.common.tasks.listing import told
from impala_redis.common.transport.diagnosis import Situation, binding_stage
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.situation import slow_rank_in, work_of
from impala_redis.workers import saying
from impala_redis.workers.scores import lines_of, shown_score
from impala_redis.workers.trust import trust_options

PLAIN_LINE_INTERVAL_S = 2.0


class Progress:
    """The view of one run; `with` shows it, `update` follows the learner's records."""

    def __init__(self, directory: RunDirectory, config: Config, learners: int = 1) -> None:
        self._directory, self._config = directory, config
        self._learners = f"{learners} learners, " if learners > 1 else ""
        self._console = Console(highlight=False, soft_wrap=True)
        self._records = RecordTail(directory.metrics)
        self._latest: dict[str, Any] = {}
        self._started = time.monotonic()
        self._next_line = 0.0
        self._live: Live | None = None

    def introduce(self, run: str, public_url: str, password_file: Path | None = None) -> None:
        """Says what runs and how to look at it, and with a password how to join it."""
        environment = self._config.environment
        where = self._directory.path
        what = told(environment.env, environment.tasks)
        self.say(f"training {what}, run {run!r}, {self._learners}in {where}")
        queue = shlex.quote(Keys(run).trajectories)
        address = shlex.quote(without_password(public_url))
        there = f"--run {run} --redis-url {address}"
        login = ""
        if password_file is not None:
            file = shlex.quote(str(password_file))
            there += f" --redis-password-file {file}"
            login = f'REDISCLI_AUTH="$(cat {file})" '
        self.say(f"the queue: {login}{cli_command(public_url)} LLEN {queue}")
        self.say(f"all of it: {_typed('impala-status')} {there}")
        if password_file is not None:
            there += trust_options(self._config)
            self.say(f"to join:   {_typed('impala-actor')} {there}")

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(
                self._panel(), console=self._console, refresh_per_second=8, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Shows the newest record."""
        for record in self._records.new():
            self._latest = record
            if self._live is None and time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + PLAIN_LINE_INTERVAL_S
                self.say(_line(record))
        if self._live is not None:
            self._live.update(self._panel())

    def conclude(self, code: int, last_words: str | None, result: dict[str, Any] | None) -> None:
        """Says how it ended, where everything is, and what to do next.

        `result` is what the learner said of it: the file may be missing, or of an earlier time.
        """
        path = self._directory.path
        typed = shlex.quote(str(path))
        if result is not None and result["status"] != "failed":
            mean = result["mean_return_100"]
            self.say(
                f"{result['status']}: mean return {shown_return(mean)} "
                f"{of_episodes(len(self._config.environment.tasks))}{_score(result)}; "
                f"{result['frames']:,} frames in all, {result['wall_s']:.1f} s"
            )
        if last_words is not None:
            saying.say(f"error: {last_words}", err=True)
            self.say(f"logs: {path / 'logs'}")
            return
        if result is None:
            frames = self._latest.get("frames", 0)
            when = (
                f"after {frames:,} frames, without a result"
                if self._latest
                else ("before the training began")
            )
            self.say(f"stopped {when}; logs: {path / 'logs'}")
            return
        if self._latest and (refused := in_words(self._latest)):
            self.say(f"left out:      {refused}")
        self.say(f"run directory: {path}")
        if code == EXIT_INTERRUPTED:
            self.say(f"continue:      {_typed('impala-train')} --resume --run-dir {typed}")
        trust = trust_options(self._config)
        self.say(f"next:          {_typed('impala-eval')} --checkpoint {typed}{trust}")
        self.say(f"               {_typed('tensorboard')} --logdir {typed}")

    def say(self, text: str) -> None:
        """Prints one line, above the panel if there is one."""
        saying.say_on(self._console, text)

    def say_all(self, texts: Iterable[str]) -> None:
        """Prints each of them."""
        for text in texts:
            self.say(text)

    def _panel(self) -> Panel:
        record, training = self._latest, self._config.training
        goal, mean = training.stop_at_return, record.get("mean_return_100")
        elapsed_s = time.monotonic() - self._started
        frames = record.get("frames", 0)
        table = Table.grid(padding=(0, 3))
        table.add_row(
            "return, last 100",
            shown_return(mean) + (f" of {goal:g}" if goal is not None and mean is not None else ""),
        )
        self._add_tasks(table)
        game_frames = record.get("game_frames", 0)
        repeated = f" ({game_frames:,} of the game)" if game_frames > frames else ""
        table.add_row("frames", f"{frames:,} of {training.total_frames:,}{repeated}")
        table.add_row("frames/s", _figure(record, "frames_per_s", ",.0f"))
        table.add_row("updates", _figure(record, "updates", ",d"))
        table.add_row("policy lag", _figure(record, "policy_lag_mean", ".1f") + " updates")
        table.add_row(
            "queue",
            f"{record.get('queue_blocks', 0):d} of {self._config.transport.queue_blocks}",
        )
        table.add_row("learner waits", _figure(record, "wait_share", ".0%"))
        table.add_row("device busy", _figure(record, "device_busy_share", ".0%") + _held(record))
        if binds := _binding(record):
            table.add_row("binds", binds)
        if refused := in_words(record):
            table.add_row("left out", Text(refused, style="yellow"))
        score, least = record.get("score"), training.stop_at_score
        if least is not None and score is not None and least > 0:
            bar = ProgressBar(total=least, completed=max(0.0, score), width=40)
        elif goal is not None and mean is not None and goal > 0:
            bar = ProgressBar(total=goal, completed=max(0.0, mean), width=40)
        else:
            bar = ProgressBar(total=training.total_frames, completed=frames, width=40)
        state = "" if record else "  starting"
        title = f"impala-train  {self._learners}{elapsed_s:.0f} s{state}"
        return Panel(Group(table, Text(""), bar), title=title, title_align="left", expand=False)

    def _add_tasks(self, table: Table) -> None:
        """Adds the mean score over the tasks and a line for each task, if there are tasks."""
        names = [task.name for task in self._config.environment.tasks]
        if not names:
            return
        goal, score = self._config.training.stop_at_score, self._latest.get("score")
        of = f" of {goal:g}" if goal is not None and score is not None else ""
        table.add_row("score", shown_score(score) + of)
        for number, line in enumerate(lines_of(names, self._latest)):
            table.add_row("" if number else "tasks", Text(line))


class RecordTail:
    """The records that a learner appends to metrics.jsonl, read as they are written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Only new records count: a resumed run has older ones.
        self._position = path.stat().st_size if path.exists() else 0
        self._partial = b""

    def new(self) -> list[dict[str, Any]]:
        """The records since the last call."""
        try:
            with open_to_read(self._path) as file:
                # What the learner could not write whole it has taken back.
                self._position = min(self._position, os.fstat(file.fileno()).st_size)
                file.seek(self._position)
                data = file.read()
        except OSError:
            return []
        self._position += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [record for line in lines if (record := _record(line)) is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """A record, None for a line that is none: a disk that was full may leave one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "frames" in record else None


def _typed(program: str) -> str:
    """A program of our environment as one must type it: by its path unless it is on PATH."""
    if shutil.which(program):
        return program
    path = Path(sys.executable).parent / program
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(near))


def _line(record: dict[str, Any]) -> str:
    refused = in_words(record)
    return (
        f"{record['time_s']:7.1f} s  {record['frames']:>11,} frames  "
        f"{_figure(record, 'frames_per_s', ',.0f')}/s  "
        f"return {shown_return(record.get('mean_return_100'))}{_score(record)}  "
        f"lag {_figure(record, 'policy_lag_mean', '.1f')}  "
        f"queue {_figure(record, 'queue_blocks', 'd')}"
        f"{'  ' if refused else ''}{refused}"
    )


def _score(values: dict[str, Any]) -> str:
    """The mean score over the tasks in words, if there is one."""
    score = values.get("score")
    return "" if score is None else f", mean score {shown_score(score)}"


def _held(record: dict[str, Any]) -> str:
    """How much of a GPU's memory the learner holds, if it computes on one."""
    held = record.get("device_memory_bytes")
    return "" if held is None else f", {held / 1e6:,.0f} MB held"


def _binding(record: dict[str, Any]) -> str:
    """The stage that binds and its share, or the slow rank, as far as a record shows it.

    impala-status knows more.
    """
    names = ("wait_share", "dropped_share", "claim_share", "refused_share")
    shares = {name: record.get(name) for name in names}
    if slow := slow_rank_in(record):
        return f"rank {slow.rank} {slow.cost_share:.0%}"
    stage = binding_stage(Situation(**shares, work=work_of(record.get)))
    return f"{stage.name} {stage.share:.0%}" if stage else ""


def _figure(record: dict[str, Any], name: str, form: str) -> str:
    value = record.get(name)
    return "-" if value is None else format(value, form)
