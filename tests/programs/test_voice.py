"""The pipe from a program to impala-train: what is said comes through, and nothing else matters."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from impala_redis.workers import voice
from support import Programs

RESULT = {"status": "solved", "mean_return_100": 490.5, "frames": 1000, "wall_s": 2.2}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[voice.Listener]:
    """This process has been started by one that listens."""
    with contextlib.closing(voice.Listener()) as made:
        monkeypatch.setenv(voice.VARIABLE, str(made.writing))
        voice._descriptor.cache_clear()
        yield made
    voice._descriptor.cache_clear()


def test_what_is_told_is_heard_in_order(listener: voice.Listener) -> None:
    # when
    voice.tell(log="NO CHECKPOINT was written")
    voice.tell(result=RESULT)
    voice.tell(log="another")
    voice.tell(error="the disk is full")
    with contextlib.suppress(SystemExit), voice.telling_code():
        sys.exit(10)

    # then
    assert listener.hear() == ["NO CHECKPOINT was written", "another"]
    assert (listener.error, listener.result) == ("the disk is full", RESULT)
    assert listener.code == 10
    assert listener.hear() == []


def test_errors_of_the_log_are_heard_and_warnings_are_not(listener: voice.Listener) -> None:
    # given
    logger = logging.getLogger()
    before = list(logger.handlers)
    voice.tell_errors()

    # when
    try:
        logging.getLogger("some.module").error("lost: %s", "x" * 10_000)
        logging.getLogger("some.module").warning("no matter")
    finally:
        logger.handlers[:] = before

    # then
    assert listener.hear() == ["lost: " + "x" * (voice.MOST_CHARACTERS - 6)]


@pytest.mark.parametrize("letter", ["x", "\N{GAME DIE}", "\x1b", "\udc80"])
def test_a_long_text_is_cut_and_fit_for_a_terminal(letter: str, listener: voice.Listener) -> None:
    # when
    voice.tell(log=letter * 10_000)
    voice.tell(error=letter * 10_000)

    # then
    (heard,) = listener.hear()
    assert heard == (letter if letter.isprintable() else "?") * voice.MOST_CHARACTERS
    assert listener.error == heard


def test_the_programs_that_a_program_starts_do_not_have_its_voice(
    listener: voice.Listener,
) -> None:
    voice.tell(log="I am here")
    assert voice.VARIABLE not in os.environ
    assert not os.get_inheritable(listener.writing)


def test_nobody_who_listens_is_no_error(listener: voice.Listener) -> None:
    listener.started()  # the pipe has no writing end any more
    listener.close()
    voice.tell(log="into the void")


def test_a_pipe_that_nobody_empties_stops_nobody(listener: voice.Listener) -> None:
    for _ in range(2000):
        voice.tell(log="x" * 500)
    assert 0 < len(listener.hear()) < 2000


@pytest.mark.parametrize("named", ["", "many", "-1", "99999"])
def test_a_variable_that_names_no_pipe_is_not_followed(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(voice.VARIABLE, named)
    voice._descriptor.cache_clear()
    voice.tell(log="nobody")
    assert voice._descriptor() is None
    voice._descriptor.cache_clear()


def test_a_file_is_never_taken_for_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "precious").open("w") as file:
        monkeypatch.setenv(voice.VARIABLE, str(file.fileno()))
        voice._descriptor.cache_clear()
        voice.tell(log="nobody")
    assert (tmp_path / "precious").read_text() == ""
    voice._descriptor.cache_clear()


def test_what_is_no_message_is_passed_over(listener: voice.Listener) -> None:
    for line in (
        b"text",
        b"[1]",
        b"{",
        b'{"log": 5}',
        b'{"result": "solved"}',
        b"\xff",
        b'{"code": true}',
    ):
        os.write(listener.writing, line + b"\n")
    os.write(listener.writing, json.dumps({"log": "half"}).encode()[:5])
    assert listener.hear() == []
    os.write(listener.writing, json.dumps({"log": "half"}).encode()[5:] + b"\n")
    assert listener.hear() == ["half"]
    assert (listener.error, listener.result, listener.code) == (None, None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"[" * 4000,
        *(
            json.dumps({"result": RESULT | change}).encode()
            for change in (
                *({"status": None}, {"frames": "many"}, {"frames": 10**400}, {"wall_s": None}),
                *({"mean_return_100": "1"}, {"mean_return_100": [1]}, {"frames": True}),
            )
        ),
        b'{"result": {}}',
        b'{"result": {"status": "solved", "mean_return_100": 1e999, "frames": 1, "wall_s": 1}}',
    ],
    ids=lambda line: line[:90].decode(),
)
def test_what_an_environment_forges_is_passed_over(line: bytes, listener: voice.Listener) -> None:
    # when its code writes to the pipe, which holds 64 KiB
    for start in range(0, len(line), 50_000):
        os.write(listener.writing, line[start : start + 50_000])
        assert listener.hear() == []
    os.write(listener.writing, b"\n")

    # then
    assert listener.hear() == []
    assert (listener.error, listener.result, listener.code) == (None, None, None)

    # and what the program says itself is heard, as before
    voice.tell(result=RESULT | {"mean_return_100": None})
    assert listener.hear() == []
    assert listener.result == RESULT | {"mean_return_100": None}


def test_half_a_line_that_somebody_left_costs_no_message(listener: voice.Listener) -> None:
    # given an environment's text without an end, short or long
    for forged in (b"x", b"x" * 20_000, b'{"log": "'):
        os.write(listener.writing, forged)

        # when
        voice.tell(log="NO CHECKPOINT was written", result=RESULT)

        # then
        assert listener.hear() == ["NO CHECKPOINT was written"]
        assert listener.result == RESULT
        listener.result = None


def test_a_flood_without_an_end_is_looked_at_in_parts_and_takes_no_memory(
    listener: voice.Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a pipe that is never empty
    looks = []

    def endless(descriptor: int, size: int) -> bytes:
        looks.append(size)
        assert len(looks) < 10_000
        return b"x" * size

    monkeypatch.setattr(os, "read", endless)

    # when
    for _ in range(3):
        assert listener.hear() == []

    # then
    assert len(looks) == 3 * voice.LONGEST_LOOK
    assert len(listener._partial) <= 2 * voice.MOST_BYTES


@pytest.mark.processes
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(programs: Programs) -> None:
    code = programs.shell("impala-status --run none --redis-url redis://localhost:1/0 2>/dev/full")
    assert code.code() == 4


PICTURES = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Pictures(gymnasium.Env):
    observation_space = spaces.Box(0, 255, (24, 24, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((24, 24, 3), np.uint8), {}

    def step(self, action):
        return np.zeros((24, 24, 3), np.uint8), 1.0, True, False, {}


gymnasium.register("Pictures-v0", entry_point=Pictures)
"""


@pytest.mark.processes
@pytest.mark.parametrize(("chosen", "times"), [((), 1), (("--network", "mlp"), 0)], ids=str)
def test_a_picture_for_a_perceptron_that_nobody_chose_is_told_once(
    programs: Programs, tmp_path: Path, chosen: tuple[str, ...], times: int
) -> None:
    # when
    (programs.folder / "pictures.py").write_text(PICTURES)
    code, output = programs.run(
        *("impala-train", "--env", "pictures:Pictures-v0", "--run-dir", str(tmp_path / "run")),
        *("--envs-per-actor", "4", "--batch-size", "4", "--total-frames", "500", *chosen),
    )

    # then
    assert code == 0, output
    said = "no network was chosen: a perceptron on 1,728 numbers is used; for pictures give"
    assert output.count(said) == times
    assert (tmp_path / "run" / "logs" / "learner.log").read_text().count(said) == times
