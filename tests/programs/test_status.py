"""impala-status: its words, its screen, and the sentence for each situation of a real run."""

import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rich.console import Console

from chaos.proxy import Proxy
from chaos.servers import OwnServer
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MonitorLink, Reading
from impala_redis.common.transport.situation import situation, summary
from impala_redis.workers.overview import as_text, notices, rows
from impala_redis.workers.screen import Screen
from support import BIN, Program, Programs, before_exec, eventually
from warm.start import WarmParent


def reading(at: float = 0.0, **changes: Any) -> Reading:
    """What a look at a run of one learner and one actor finds, with some things changed."""
    books = dict.fromkeys(
        ("produced", "consumed", "dropped_oldest", "dead_lettered", "stale_rejected"), 0
    ) | {"abandoned": 0, "queued": 0, "in_flight": 0, "foreign": 0, "generation": "g"}
    learner = {
        "holder": "host:7#1.2-3",
        "epoch": 1,
        "weights_version": 10,
        "published_unix_s": None,
        "figures": changes.pop("figures", {}),
    }
    return {
        "at": at,
        "books": books | changes.pop("books", {}),
        "residual": changes.pop("residual", 0),
        "learner": learner | changes.pop("learner", {}),
        "state": "running",
        "queue_blocks": 4,
        "actors": changes.pop("actors", {"a": {"host": "h", "pid": "8", "frames_per_s": "900"}}),
        "memory": {"used_bytes": 2_000_000, "maxmemory_bytes": 8_000_000, "share": 0.25},
        **changes,
    }


# What an operator must not overlook.


def test_when_all_is_well_there_is_no_notice() -> None:
    assert notices(reading(figures={"runs_lost": 0, "updates_skipped": 0})) == []


def test_books_that_do_not_balance_are_an_alarm_and_come_first() -> None:
    found = notices(reading(residual=3, books={"foreign": 1}))
    assert found[0] == ("ALARM", "the books do not balance: 3 blocks are unexplained")
    assert len(found) == 2


def test_what_was_lost_skipped_or_came_another_way_is_told() -> None:
    figures = {"runs_lost": 2.0, "updates_skipped": 5.0}
    lost, foreign, skipped = notices(reading(figures=figures, books={"foreign": 7}))
    assert "opened again: 2; the server had lost" in lost[1]
    assert "7 blocks came onto the list around the push" in foreign[1]
    assert "5 updates were skipped" in skipped[1]


@pytest.mark.parametrize(
    ("policy", "evicted", "notice"),
    [
        ("allkeys-lru", 0, "the server may evict the run's keys (maxmemory-policy allkeys-lru; 0"),
        ("random", 9000, "the server may evict the run's keys (maxmemory-policy random; 9,000"),
        ("volatile-lfu", 3, "the server evicts keys that expire (maxmemory-policy volatile-lfu; 3"),
        ("volatile-lfu", 0, None),
        ("noeviction", 3, None),
        ("", 3, None),
    ],
)
def test_a_server_that_evicts_is_told_of_even_by_a_single_look(
    policy: str, evicted: int, notice: str | None
) -> None:
    memory = {"used_bytes": 1, "maxmemory_bytes": 8, "share": 0.1}
    found = notices(reading(memory=memory | {"policy": policy, "evicted_keys": evicted}))
    assert len(found) == (notice is not None)
    assert notice is None or found[0][1].startswith(notice + " keys since its start)")


# Out of readings: rates and shares.


def test_shares_are_of_what_happened_between_two_readings() -> None:
    # given
    actor = {"generated": "100", "shed_local": "10"}
    before = reading(books={"produced": 100, "dropped_oldest": 50, "consumed": 50}, actors={})
    before["actors"] = {"a": actor, "gone": {"generated": "5"}}
    books = {"produced": 200, "dropped_oldest": 90, "consumed": 85, "queued": 20}
    books |= {"stale_rejected": 4, "dead_lettered": 1}
    now = reading(2.0, books=books, figures={"wait_share": 0.4, "claim_share": 0.2})
    now["actors"] = {"a": {"generated": "300", "shed_local": "60"}, "new": {"generated": "1"}}

    # when
    found = situation([before, now])

    # then
    assert (found.learner_present, found.actors, found.memory_share) == (True, 2, 0.25)
    assert (found.wait_share, found.claim_share) == (0.4, 0.2)
    assert (found.dropped_share, found.growth_share, found.refused_share) == (0.4, 0.2, 0.05)
    assert found.shed_share == 0.25
    assert summary([before, now])["blocks_per_s"] == {
        "produced": 50.0,
        "consumed": 17.5,
        "dropped_oldest": 20.0,
    }


def test_figures_of_an_earlier_learner_are_not_taken_for_this_ones() -> None:
    # given a learner that has just taken the run over, and what the one before has left
    figures = {"wait_share": 0.9, "epoch": 1.0}
    at_work = {"produced": 10, "queued": 4, "in_flight": 1, "dropped_oldest": 5}
    readings = [
        reading(at, books=at_work, learner={"epoch": 2}, figures=figures) for at in (0.0, 1.0)
    ]

    # then nothing is claimed
    assert situation(readings).wait_share is None
    assert summary(readings)["bottleneck"].startswith("not enough figures")
    assert ("last", "0 frames, 0/s; return -") in rows("r", summary(readings))


def test_a_learner_that_records_nothing_for_lack_of_blocks_is_seen_to_wait() -> None:
    readings = [reading(at, figures={"wait_share": 0.1}) for at in (0.0, 1.0)]
    assert situation(readings).wait_share == 1.0


def test_a_run_that_its_learner_has_finished_wants_nothing() -> None:
    status = summary([reading(state="finished", learner={"holder": None}, actors={})])
    assert status["bottleneck"].startswith("the run is finished")


def test_an_actor_that_begins_anew_does_not_count_backwards() -> None:
    before = reading(actors={"a": {"generated": "500", "shed_local": "100"}})
    now = reading(1.0, actors={"a": {"generated": "5", "shed_local": "0"}})
    assert situation([before, now]).shed_share is None


def test_after_the_server_lost_the_run_there_are_no_rates_across_it() -> None:
    status = summary([reading(), reading(1.0, books={"generation": "another"})])
    assert "blocks_per_s" not in status
    assert status["bottleneck"].startswith("not enough figures")


# Words.


def test_the_words_hold_all_that_is_known() -> None:
    figures = {"frames": 1e6, "total_frames": 2e6, "frames_per_s": 5e4, "updates": 99.0}
    figures |= {"mean_return_100": 12.34, "wait_share": 0.62, "policy_lag_mean": 3.0}
    figures |= {"policy_lag_p95": 4.0, "policy_lag_max": 6.0, "policy_lag_s_mean": 0.125}
    figures |= {"device_busy_share": 0.36, "game_frames": 4e6, "bytes_per_step": 8470.4}
    status = summary([reading(), reading(1.0, figures=figures, books={"produced": 3, "queued": 3})])

    assert as_text("cart", status).splitlines() == [
        "run      cart, running",
        "verdict  actor-bound: the learner waits 62 %; add actors or environments",
        "binds    actors, 62 % of the time: the learner waits for blocks",
        "learner  host:7, epoch 1; waits 62 %; its device is busy 36 %",
        "weights  version 10: none published; 99 updates, 0.0/s",
        "training 1,000,000 of 2,000,000 frames (4,000,000 of the game), 50,000/s; return 12.3",
        "data     policy lag 3.0 (p95 4, max 6) versions, 0.12 s; 8,470 bytes a step",
        "queue    3 of 4 blocks, 0 in flight",
        "blocks/s 3.0 pushed, 0.0 consumed, 0.0 dropped",
        "memory   2 MB of 8 MB, 25 %",
        "books    produced 3 = 3 queued; residual 0",
        "actors   1 on 1 host, 900 frames/s; shed 0",
        f"  a{'':<23} h:8        900 frames/s  version ? (10 behind)  shed 0",
    ]


def test_a_learner_on_a_gpu_says_how_busy_it_is_what_it_holds_and_what_binds() -> None:
    # given a GPU whose updates are CUDA graphs: it has work for 30 % of the time, and never waits
    figures = {"frames": 1e6, "frames_per_s": 5e4, "updates": 99.0, "wait_share": 0.02}
    figures |= {"device_busy_share": 0.3, "device_memory_bytes": 1.3e9, "transfer_s": 0.0005}
    figures |= {"updates_per_s": 120.0, "publish_share": 0.4}
    status = summary([reading(at, figures=figures, books={"in_flight": 1}) for at in (0.0, 1.0)])

    # when
    text = as_text("pong", status)

    # then
    assert text.splitlines()[1:4] == [
        "verdict  host-bound: the learner waits 2 % and its device is busy 30 %; take a larger "
        "--batch-size",
        "binds    host, 68 % of the time: the device waits for the learner's main thread",
        "learner  host:7, epoch 1; waits 2 %; its device is busy 30 %, 1,300 MB of its memory held",
    ]
    assert "nan" not in text.lower()
    assert "figures" not in text


def test_of_a_learner_that_is_gone_neither_memory_nor_stage_is_told() -> None:
    figures = {"wait_share": 0.02, "device_busy_share": 0.3, "device_memory_bytes": 1.3e9}
    gone = {"holder": None}
    status = summary([reading(at, figures=figures, learner=gone) for at in (0.0, 1.0)])
    text = as_text("pong", status)
    assert "binds" not in text
    assert "memory held" not in text


def test_an_actor_that_waits_for_room_is_seen_to() -> None:
    actors = {"a": {"waited_s": "1234.5"}, "b": {"waited_s": "0.0"}, "c": {"waited_s": "nan"}}
    *_, first, second, third = as_text("cart", summary([reading(actors=actors)])).splitlines()
    assert first.endswith("shed 0  waited 1,234 s for room")
    assert second.endswith("shed 0")
    assert third.endswith("shed 0")


def test_what_is_not_known_is_left_out() -> None:
    status = summary([reading(memory=None, state=None, queue_blocks=None, actors={})])
    text = as_text("cart", status)
    assert "memory" not in text
    assert "training" not in text
    assert "blocks/s" not in text
    assert "run      cart, not announced" in text
    assert "actors   0" in text
    assert "queue    0 blocks, 0 in flight" in text


def test_a_server_without_a_limit_is_said_to_have_none() -> None:
    memory = {"used_bytes": 2_000_000, "maxmemory_bytes": 0, "share": None}
    assert ("memory", "2 MB, no limit is set") in rows("r", summary([reading(memory=memory)]))


# The screen.


def drawn(status: dict[str, Any], width: int, height: int, trouble: str | None = None) -> list[str]:
    """The lines of a terminal of that size."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        screen.show(rows("cart", status), status, trouble)
    picture = file.getvalue().rpartition("\x1b[H")[2].partition("\x1b[?25h")[0]
    return [line.rstrip() for line in picture.splitlines()]


def crowd(number: int) -> dict[str, dict[str, str]]:
    return {
        f"actor-{i:02}": {
            "host": f"node-{i % 4}",
            "pid": str(4000 + i),
            "frames_per_s": str(90_000 - 1000 * i),
            "weights_version": "8",
            "shed_local": "0",
        }
        for i in range(number)
    }


@pytest.mark.parametrize(("width", "height"), [(80, 24), (50, 20), (140, 40), (30, 8)])
@pytest.mark.parametrize("number", [0, 1, 4, 40])
def test_the_screen_fits_the_terminal(number: int, width: int, height: int) -> None:
    lines = drawn(summary([reading(actors=crowd(number))]), width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith("verdict")


def test_actors_have_a_line_each() -> None:
    lines = drawn(summary([reading(actors=crowd(4))]), 80, 24)
    titles = next(i for i, line in enumerate(lines) if line.startswith("actor  "))
    assert lines[titles].split() == [
        *("actor", "host", "pid", "frames/s", "version", "behind", "shed")
    ]
    assert lines[titles + 2].split() == ["actor-01", "node-1", "4001", "89,000", "8", "2", "0"]


def test_of_more_actors_than_lines_the_slowest_are_shown_and_the_others_counted() -> None:
    lines = [line for line in drawn(summary([reading(actors=crowd(40))]), 80, 24) if line]
    shown = [line for line in lines if line.startswith("actor-")]
    assert len(lines) == 24
    assert shown[0].startswith("actor-39")
    assert lines[-1] == f"and {40 - len(shown)} more; these are the slowest"


def test_names_that_repeat_host_and_pid_are_not_shown_twice() -> None:
    actors = {"h-8": {"host": "h", "pid": "8"}}
    assert any(
        line.startswith("host  pid") for line in drawn(summary([reading(actors=actors)]), 80, 24)
    )


def test_figures_that_are_not_of_now_come_without_a_verdict() -> None:
    lines = drawn(summary([reading()]), 80, 24, trouble="no answer from Redis for 7 s")
    assert lines[1] == "trouble  no answer from Redis for 7 s; last figures below"
    assert not any(line.startswith("verdict") for line in lines)


def test_what_actors_call_themselves_is_no_markup() -> None:
    actors = {"[red]a[/]": {"host": "[bold", "pid": "[/nothing]"}}
    assert any("[red]a[/]" in line for line in drawn(summary([reading(actors=actors)]), 80, 24))


def test_what_stands_in_redis_never_reaches_the_terminal_as_a_command(
    raw: redis.Redis, redis_url: str, run_name: str
) -> None:
    # given a run in which somebody has left control characters and figures that are none
    learner = LearnerLink(redis_url, run_name, "\x1b[2Jhost:1#x", 5.0)
    learner.open()
    keys = learner.keys
    raw.hset(
        keys.epoch, mapping={"learner:frames": "nan", "learner:updates": "x", b"learner:\xff": 1}
    )
    raw.hset(keys.epoch, "learner:wait_share", "0.5")
    raw.hset(keys.weights, mapping={"version": "1", "published_at": "soon"})
    raw.hset(keys.spec, mapping={"json": "{", "digest": "d", "state": "\x1b]0;title\x07"})
    raw.hset(
        keys.actor("\x1b[31m"), mapping={"host": "\x1b[2J", "pid": "\r\n", "frames_per_s": "x"}
    )

    # when
    link = MonitorLink(redis_url, run_name, "test")
    status = summary([link.read()])
    link.close()
    learner.close()

    # then it is shown without them
    assert all(c.isprintable() or c == "\n" for c in as_text(run_name, status))
    assert status["learner"]["figures"] == {"\ufffd": 1.0, "wait_share": 0.5}
    assert status["learner"]["published_unix_s"] is None
    assert status["queue_blocks"] is None
    for line in drawn(status, 80, 24):
        assert line.isprintable()


# In a terminal.


class Terminal:
    """A pseudo-terminal, 80 by 24, in which `impala-status --watch` runs."""

    def __init__(self, url: str, run: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.set_blocking(self._ours, False)
        self.written = ""
        self.process = subprocess.Popen(
            [str(BIN / "impala-status"), "--watch", "--run", run, "--redis-url", url],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            preexec_fn=before_exec,
        )
        os.close(theirs)

    def shows(self, text: str) -> None:
        """Waits until it has been written."""
        eventually(lambda: text in self._read(), what=f"{text!r} after {self.written[-2000:]}")

    def end(self) -> int:
        """Waits for the program's end and reads its last words; the exit code."""
        eventually(lambda: (self._read(), self.process.poll() is not None)[1])
        self._read()
        return self.process.wait()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> str:
        with contextlib.suppress(OSError):  # nothing there now, or never again
            while data := os.read(self._ours, 65_536):
                self.written += data.decode(errors="replace")
        return self.written


@pytest.fixture
def opened(own_server: OwnServer, run_name: str) -> Iterator[LearnerLink]:
    """A run that a learner holds, on a server for this test alone."""
    link = LearnerLink(own_server.url, run_name, "host:1#x", 60.0)
    link.open()
    yield link
    link.close()


ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.mark.processes
def test_ctrl_c_gives_the_terminal_back_with_the_last_figures_on_it(opened: LearnerLink) -> None:
    with Terminal(opened.url, opened.run) as terminal:
        # given a screen that shows a run
        terminal.shows("no actors: start some with impala-actor")
        assert ENTER in terminal.written

        # when
        terminal.process.send_signal(signal.SIGINT)

        # then
        assert terminal.end() == 0
        screen, _, after = terminal.written.partition(LEAVE)
        assert SHOW_CURSOR in screen + after
        assert after.count("verdict  no actors") == 1


@pytest.mark.processes
def test_watching_outlives_a_loss_of_the_server_and_a_refusal_ends_it_in_order(
    opened: LearnerLink, own_server: OwnServer, programs: Programs
) -> None:
    # given a screen, and lines for a program
    lines = programs.start(
        *("impala-status", "--watch", "--json", "--run", opened.run, "--redis-url", opened.url)
    )
    with Terminal(opened.url, opened.run) as terminal, own_server.client() as operator:
        lines.says("no actors")
        terminal.shows("no actors")

        # when the server answers no more, then the screen says so above the last figures, the
        # lines stop, and a log line says why
        with own_server.frozen():
            terminal.shows("no answer from Redis for ")
            terminal.shows("; last figures below")
            lines.says("no answer from Redis for ")
            lines.says(" s; going on when it is back")
            printed = lines.output.count("bottleneck")

        # when it answers again, but has lost the run, then the run is waited for
        operator.flushall()
        terminal.shows("there is no run")
        lines.says("waiting for a learner to open it")
        terminal.written = ""
        opened.open()
        terminal.shows("no actors")
        eventually(lambda: lines.output.count("bottleneck") > printed)

        # when it wants a password from now on
        operator.config_set("requirepass", "changed")
        operator.client_kill_filter(_type="normal", skipme=True)

        # then the terminal is given back, and one sentence says why it ends; the silence before
        # was told once
        assert lines.output.count("no answer from Redis") == 1
        assert terminal.end() == lines.code() == 5
        after = terminal.written.partition(LEAVE)[2]
        for output in (after, lines.output):
            assert output.count("error: Redis at redis://127.0.0.1") == 1
            assert "Traceback" not in output


def test_a_user_who_may_not_ask_for_memory_sees_all_the_rest(
    opened: LearnerLink, own_server: OwnServer
) -> None:
    # given
    with own_server.client() as operator:
        operator.acl_setuser(
            "blind", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"]
        )
        link = MonitorLink(own_server.url.replace("//", "//blind:x@"), opened.run, "test")

        # when
        status = summary([link.read(), link.read()])
        link.close()

        # then the line is left out, and the server was asked once
        assert status["memory"] is None
        assert "\nmemory" not in as_text(opened.run, status)
        assert [int(entry["count"]) for entry in operator.acl_log()] == [1]


# The sentence for each situation of a real run.

# CartPole, at a pace that a file commands at any time.
MODULE = """
import os, time
from pathlib import Path
import gymnasium, redis
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

PACE = Path(os.environ["PACE"])
SERVER = redis.Redis.from_url(os.environ["LIST_URL"])
LIST = "impala:{paced}:trajectories"

class Paced(CartPoleEnv):
    def step(self, action):
        pace = PACE.read_text()
        if pace == "slow":
            time.sleep(0.2)
        while PACE.read_text() == "polite" and SERVER.llen(LIST) >= 4:
            time.sleep(0.001)
        return super().step(action)

gymnasium.register("Paced-v0", Paced, max_episode_steps=500)
"""


class Scene:
    """A run with a learner whose every update takes a while, and one actor, each behind a proxy."""

    def __init__(self, folder: Path, warm_parent: WarmParent | None) -> None:
        self.server = OwnServer(folder)
        self.to_learner, self.to_actor = Proxy(self.server.port), Proxy(self.server.port)
        self.programs, self._pace = Programs(folder, warm_parent), folder / "pace"
        (folder / "paced.py").write_text(MODULE)
        self.pace("fast")
        self._variables = {
            "IMPALA_RUN": "paced",
            "PYTHONPATH": str(folder),
            "PACE": str(self._pace),
            "LIST_URL": self.server.url,
        }
        try:
            self.learner, self.actor = self._a_learner(), self._an_actor()
            self._watching = self._start(None, "impala-status", "--watch", "--json")
        except BaseException:
            self.close()
            raise

    def set_up(self) -> None:
        """As it was at first, whatever a test has made of it."""
        self.pace("fast")
        self.to_learner.heal()
        self.to_actor.heal()
        with self.server.client() as operator:
            operator.delete("other")
            operator.config_set("maxmemory", 0)
        if self.learner.process.poll() is not None:
            self.learner = self._a_learner()
        if self.actor.process.poll() is not None:
            self.actor = self._an_actor()

    def pace(self, pace: str) -> None:
        """How the actor plays from now on: fast, slow, or polite: only while the list has room."""
        self._pace.with_suffix(".new").write_text(pace)
        self._pace.with_suffix(".new").rename(self._pace)

    def _an_actor(self) -> Program:
        return self._start(self.to_actor, "impala-actor", "--env-module", "paced")

    def _a_learner(self) -> Program:
        """One that saves a checkpoint after each update: that is what makes it slow."""
        learner = self._start(
            self.to_learner,
            *("impala-learner", "--env", "paced:Paced-v0", "--lease-s", "1", "--run-dir", "run"),
            *("--envs-per-actor", "1", "--unroll-length", "1", "--batch-size", "1", "--resume"),
            *("--queue-blocks", "16", "--log-interval-s", "0.1"),
            *("--checkpoint-interval-s", "0.001", "--keep-checkpoints", "1"),
        )
        learner.says("ready")
        return learner

    def says(self, beginning: str) -> dict[str, Any]:
        """Waits for two statuses in a row, so not in passing, whose verdict begins so; the last."""
        seen = self._watching.log.stat().st_size

        def said() -> list[dict[str, Any]]:
            lines = self._watching.log.read_bytes()[seen:].splitlines(keepends=True)
            return [json.loads(line) for line in lines if line[:1] == b"{" and line[-1:] == b"\n"]

        def twice() -> bool:
            last = [str(status["bottleneck"]) for status in said()[-2:]]
            return len(last) == 2 and all(verdict.startswith(beginning) for verdict in last)

        try:
            eventually(twice)
        except AssertionError:
            raise AssertionError(f"{beginning!r} was not said; at last: {said()[-1:]}") from None
        return said()[-1]

    def close(self) -> None:
        self.programs.end()
        self.to_learner.close()
        self.to_actor.close()
        self.server.stop()

    def _start(self, proxy: Proxy | None, *command: str) -> Program:
        url = (proxy or self.server).url
        return self.programs.start(*command, IMPALA_REDIS_URL=url, **self._variables)


@pytest.fixture(scope="module")
def one_scene(
    tmp_path_factory: pytest.TempPathFactory, warm_parent: WarmParent | None
) -> Iterator[Scene]:
    """One run for all the situations: a learner takes seconds to start."""
    staged = Scene(tmp_path_factory.mktemp("scene"), warm_parent)
    yield staged
    staged.close()


@pytest.fixture
def scene(one_scene: Scene) -> Scene:
    """The run as it was set up, whatever situation the test before has made of it."""
    one_scene.set_up()
    return one_scene


@pytest.mark.processes
@pytest.mark.timed
def test_more_blocks_than_the_learner_takes_are_learner_bound(scene: Scene) -> None:
    status = scene.says("learner-bound: actors are dropping ")
    assert status["blocks_per_s"]["dropped_oldest"] > 0
    assert status["bottleneck"].endswith(", or fewer actors")


@pytest.mark.processes
@pytest.mark.timed
def test_a_server_that_fills_up_comes_before_what_is_slow(scene: Scene) -> None:
    # given a run that is learner-bound, on a server of 64 MB
    scene.says("learner-bound")
    with scene.server.client() as operator:
        operator.config_set("maxmemory", "64mb")

        # when something else fills it to a little more than 80 %
        while operator.info("memory")["used_memory"] < 0.83 * 64 * 2**20:
            operator.rpush("other", b"x" * 500_000)

        # then
        status = scene.says("the server is at 8")
        assert 0.8 <= status["memory"]["share"] < 0.9


@pytest.mark.processes
@pytest.mark.timed
def test_an_actor_that_keeps_pace_is_balanced(scene: Scene) -> None:
    scene.pace("polite")
    scene.says("balanced: the learner waits ")


@pytest.mark.processes
@pytest.mark.timed
def test_a_slow_environment_is_actor_bound(scene: Scene) -> None:
    scene.pace("slow")
    scene.says("actor-bound: the learner waits ")


@pytest.mark.processes
@pytest.mark.timed
def test_a_slow_way_from_the_actors_is_link_bound(scene: Scene) -> None:
    scene.to_actor.latency_s = 0.1
    scene.says("link-bound: actors shed ")


@pytest.mark.processes
@pytest.mark.timed
def test_a_slow_way_to_the_learner_is_link_bound(scene: Scene) -> None:
    scene.to_learner.latency_s = 0.1
    scene.says("link-bound: the learner waits ")


@pytest.mark.processes
@pytest.mark.timed
def test_without_actors_some_are_asked_for(scene: Scene) -> None:
    scene.actor.send(signal.SIGTERM)
    scene.says("no actors: ")


@pytest.mark.processes
@pytest.mark.timed
def test_without_a_learner_one_is_asked_for(scene: Scene) -> None:
    scene.learner.send(signal.SIGKILL)
    status = scene.says("no learner holds the run: ")
    assert status["learner"]["holder"] is None
