"""What a user's environment does to its process: programs end, and say what they have to."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gymnasium import spaces

from impala_redis.common.encoding.space_text import spaces_in
from impala_redis.common.errors import ConfigError, UnsupportedEnvironment
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.settings.variant import Variant
from impala_redis.workers import log_files, probing
from impala_redis.workers.probing import spaces_of
from support import BIN, Program, Programs, eventually, is_running

MODULE = """
import atexit, os, signal, subprocess, sys, threading, time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


def take_signals():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])


class Plain(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    length = 5

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps >= self.length, False, {}


class Wide(Plain):
    def __init__(self):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        atexit.register(time.sleep, 1000)
        os.chdir("/")
        take_signals()
        print("a word of the environment")
        os.write(1, b"and one of its library\\n")

    def step(self, action):
        sys.stdout.close()
        sys.stderr.close()
        return super().step(action)


class Endless(Plain):
    length = 10**9

    def __init__(self, made=None, reset=None, step=None):
        self.at_reset, self.at_step = reset, step
        if made:
            made()

    def reset(self, **given):
        if self.at_reset:
            self.at_reset()
        return super().reset(**given)

    def step(self, action):
        if self.at_step:
            self.at_step()
        Path("steps").touch()
        return super().step(action)


class Forks(Endless):
    def step(self, action):
        child = os.fork()
        if not child:
            Path("forked").touch()
            time.sleep(1000)
        while not Path("forked").exists():
            time.sleep(0.01)
        Path("forked").unlink()
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        Path("ended").touch()
        return Plain.step(self, action)


class Bears(Plain):
    def __init__(self):
        child = subprocess.Popen(["sleep", "1000"])
        Path("child").write_text(f"{os.getpid()} {child.pid}")


def forge(answer):
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if int(descriptor) > 2:
                os.write(int(descriptor), answer)
        except OSError:
            pass


def hang():
    print("it hangs now", flush=True)
    time.sleep(1000)


def spin():
    print("it hangs now", flush=True)
    while True:
        pass


class Stuck(Plain):
    def close(self):
        hang()


def leave():
    os._exit(7)


def leave_a_child():
    if not os.fork():
        time.sleep(1000)
    os._exit(7)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def give_up():
    sys.exit("no licence")


for name in ("Plain", "Wide", "Forks", "Bears", "Stuck"):
    gymnasium.register(f"{name}-v0", globals()[name])
for name in ("hang", "leave", "leave_a_child", "crash", "give_up"):
    gymnasium.register(f"{name}-v0", lambda made=globals()[name]: Endless(made))
for number, answer in enumerate([b"[]\\n", b"{}\\n", b"{\\n", b"[" * 60_000 + b"\\n", b"5\\n"]):
    gymnasium.register(
        f"Forged{number}-v0", Endless, kwargs={"made": lambda answer=answer: forge(answer)}
    )
for when in ("made", "reset", "step"):
    for what in (take_signals, ignore_signals, block_signals, spin, hang):
        gymnasium.register(f"{what.__name__}_{when}-v0", Endless, kwargs={when: what})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the module lies; it is on the path of the programs, and the working directory."""
    (tmp_path / "wide_code.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Asked:
    """Says after some looks that the program is to stop."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


NEVER: Callable[..., bool] = Asked(float("inf"))


# The learner's process that makes it.


@pytest.mark.parametrize("env_id", ["wide_code:Plain-v0", "wide_code:Wide-v0"])
def test_the_spaces_come_out_of_a_process_of_their_own(folder: Path, env_id: str) -> None:
    # when
    before = signal.getsignal(signal.SIGTERM)
    found = spaces_of(env_id, 3, NEVER)  # type: ignore[arg-type]

    # then nothing else does
    assert found[:2] == (ObservationSpec((3,), "float32", frame_stack=3), discrete(2))
    assert spaces_in(found.text) == (spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2))
    assert Path.cwd() == folder
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("env_id", "why"),
    [
        ("leave-v0", "cannot be made: its code ended the process with the exit code 7$"),
        ("leave_a_child-v0", "cannot be made: its code ended the process with the exit code 7$"),
        ("crash-v0", "cannot be made: its code ended the process by the signal SIGSEGV$"),
        ("give_up-v0", r"cannot be made: it calls sys.exit\('no licence'\) \(.*, in give_up\)$"),
        ("hang-v0", "hangs: it is not made after 1.5 s; look at its constructor$"),
        *((f"Forged{n}-v0", "cannot be made: its code has written to a desc") for n in range(5)),
        ("nothing-v0", "there is no environment 'wide_code:nothing-v0'"),
    ],
)
def test_an_environment_that_cannot_be_made_is_refused_with_what_it_did(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    env_id: str,
    why: str,
) -> None:
    monkeypatch.setattr(probing, "MADE_WITHIN_S", 1.5 if "hang" in env_id else 30.0)
    monkeypatch.setattr(probing, "LONG_CALL_S", 0.5 if "hang" in env_id else 30.0)
    with pytest.raises(UnsupportedEnvironment, match=why) as refused:
        spaces_of(f"wide_code:{env_id}", 1, NEVER)  # type: ignore[arg-type]
    assert ("in give_up" in refused.value.frames) == (env_id == "give_up-v0")
    waits = "wide_code:hang-v0 is not made after 0.5 s: waiting for its constructor"
    assert caplog.messages == ([waits] if "hang" in env_id else [])


def test_a_wrapper_that_cannot_be_imported_is_refused_with_its_frames(folder: Path) -> None:
    # given
    (folder / "wrong_code.py").write_text("def f():\n    return {}['gone']\nf()\n")

    # when
    with pytest.raises(ConfigError, match="the wrapper wrong_code:X cannot be imported") as refused:
        spaces_of("CartPole-v1", 1, NEVER, Variant(wrapper=("wrong_code:X",)))  # type: ignore[arg-type]

    # then
    assert re.search(r"wrong_code.py\", line 2, in f\n", refused.value.frames)


def test_a_program_that_is_to_stop_does_not_wait_for_an_environment(folder: Path) -> None:
    with pytest.raises(SystemExit) as left:
        spaces_of("wide_code:hang-v0", 1, Asked(10))  # type: ignore[arg-type]
    assert left.value.code == 130


def test_what_an_environment_has_started_ends_with_its_process(folder: Path) -> None:
    # when
    spaces_of("wide_code:Bears-v0", 1, NEVER)  # type: ignore[arg-type]

    # then
    for pid in map(int, (folder / "child").read_text().split()):
        eventually(lambda pid=pid: not is_running(pid))


# The programs.


@pytest.mark.processes
def test_a_run_ends_and_is_evaluated_whatever_its_environment_leaves(
    programs: Programs, folder: Path
) -> None:
    # when trained in a relative directory, with an environment that goes elsewhere
    started = time.monotonic()
    code, output = programs.run(
        *("impala-train", "--env", "wide_code:Wide-v0", "--total-frames", "2000"),
        *("--unroll-length", "5", "--run-dir", "mine"),
        cwd=folder,
    )

    # then it is finished, and its files are where they were asked for
    assert code == 0, output
    assert json.loads((folder / "mine" / "result.json").read_text())["status"] == "finished"
    assert "a word of the environment" not in output

    # and when evaluated, standard output holds the report alone
    done = subprocess.run(
        [
            *(str(BIN / "impala-eval"), "--checkpoint", "mine", "--env-module", "wide_code"),
            *("--episodes", "2", "--json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["mean_return"] == 5.0
    assert "a word of the environment\n" in done.stderr
    assert "and one of its library\n" in done.stderr
    assert time.monotonic() - started < 60  # and not the thousand seconds


@pytest.mark.processes
def test_an_environment_in_a_file_is_trained_and_the_next_line_works_as_it_is_printed(
    programs: Programs, tmp_path: Path
) -> None:
    # given a file in a folder that no path leads to
    folder = tmp_path / "my envs"
    folder.mkdir()
    (folder / "far.py").write_text(MODULE.replace("-v0", "Far-v0"))

    # when
    code, output = programs.run(
        *("impala-train", "--env", "my envs/far.py:PlainFar-v0", "--total-frames", "1000"),
        *("--unroll-length", "5", "--run-dir", "run"),
    )

    # then
    assert code == 0, output
    (line,) = re.findall(r"^next: +(.+)$", output, re.MULTILINE)
    assert line.endswith("impala-eval --checkpoint run --env-module 'my envs/far.py'")
    evaluation = programs.shell(line)
    assert evaluation.code() == 0, evaluation.output
    assert "far:PlainFar-v0, 20 episodes" in evaluation.output


def test_what_is_printed_without_end_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a log that a program goes on to write
    monkeypatch.setattr(log_files, "MOST_LOG_BYTES", 1000)
    monkeypatch.setattr(log_files, "KEPT_LOG_BYTES", 10)
    log = tmp_path / "actor-0.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"beginning " + 990 * b"x")
        assert not log_files.cut_log(log)
        writer.write(b"y")

        # when
        assert log_files.cut_log(log)
        writer.write(b"error: the last word\n")

    # then its beginning and what comes now are there
    assert log.read_text().splitlines() == [
        "beginning ",
        "[cut here: the log had more than 1,000 bytes]",
        "error: the last word",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module, and a run of it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "wide_code.py").write_text(MODULE)
    programs = Programs(folder)
    code, output = programs.run(
        *("impala-train", "--env", "wide_code:Plain-v0", "--total-frames", "1000"),
        *("--unroll-length", "5", "--run-dir", "run"),
        cwd=folder,
    )
    assert code == 0, output
    return folder


def evaluate(programs: Programs, trained: Path, env_id: str, folder: Path) -> Program:
    """Starts an evaluation of the run in another environment of the same spaces."""
    for path in (trained / "run" / "checkpoints").glob("*.json"):
        text = path.read_text()
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run" / path.name).write_text(text.replace("Plain-v0", env_id))
    for path in (trained / "run" / "checkpoints").glob("*.safetensors"):
        (folder / "run" / path.name).write_bytes(path.read_bytes())
    newest = max((folder / "run").glob("*.safetensors"))
    return programs.start(
        *("impala-eval", "--checkpoint", str(newest), "--env-module", "wide_code"),
        *("--episodes", "1", "--max-steps", "1000000000"),
        cwd=folder,
    )


@pytest.mark.processes
@pytest.mark.parametrize("name", ["spin_step", "hang_reset", "spin_made"])
def test_one_signal_ends_an_evaluation_whose_environment_hangs(
    programs: Programs, trained: Path, folder: Path, name: str
) -> None:
    # given
    evaluation = evaluate(programs, trained, f"{name}-v0", folder)
    evaluation.says("it hangs now")

    # when
    evaluation.send(signal.SIGTERM)

    # then
    assert evaluation.code() == 130


@pytest.mark.processes
def test_an_environment_that_hangs_in_close_costs_no_report(
    programs: Programs, trained: Path, folder: Path
) -> None:
    evaluation = evaluate(programs, trained, "Stuck-v0", folder)
    assert evaluation.code() == 0
    assert "return: mean 5.00" in evaluation.output


@pytest.mark.processes
@pytest.mark.parametrize("when", ["made", "reset", "step"])
@pytest.mark.parametrize("what", ["take_signals", "ignore_signals", "block_signals"])
def test_a_signal_ends_a_program_whose_environment_has_taken_it(
    programs: Programs, trained: Path, folder: Path, what: str, when: str
) -> None:
    # given an evaluation without end
    evaluation = evaluate(programs, trained, f"{what}_{when}-v0", folder)
    eventually((folder / "steps").exists, what="a step")

    # when
    def ended() -> bool:
        evaluation.send(signal.SIGTERM)
        return evaluation.process.poll() is not None

    # then one signal is enough, but where it is ignored again in each step: that loses some
    if (what, when) == ("ignore_signals", "step"):
        eventually(ended)
        assert evaluation.code() in (130, -signal.SIGTERM)  # the next one may meet its last moment
    else:
        evaluation.send(signal.SIGTERM)
        assert evaluation.code() == 130


@pytest.mark.processes
def test_a_signal_for_a_child_that_an_environment_forked_is_not_the_programs(
    programs: Programs, trained: Path, folder: Path
) -> None:
    evaluation = evaluate(programs, trained, "Forks-v0", folder)
    eventually((folder / "ended").exists, what="a child's end")
    (folder / "ended").unlink()
    eventually((folder / "ended").exists, what="another child's end")
    assert evaluation.process.poll() is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "it ended without a word, as by os._exit"),
        (7, "it ended without a word, as by os._exit"),
        (-signal.SIGSEGV, "it was ended by the signal SIGSEGV without a word"),
        (-signal.SIGKILL, "it was killed, perhaps for want of memory"),
        (-signal.SIGRTMIN - 1, "it ended without a word, as by os._exit"),
    ],
)
def test_an_actor_that_ends_without_a_word_is_spoken_for(code: int, words: str) -> None:
    assert log_files.silent_end(code).startswith(words)
