"""What every program sets up for itself."""

import contextlib
import os
import platform
import signal
import subprocess
import sys

import pytest

from impala_redis.workers import stopping
from impala_redis.workers.process import holder_name, is_dead_here
from support import Programs, before_exec, eventually

FAULTS = """
import resource
import numpy as np
from impala_redis.workers import process

process.keep_memory()

def update():
    return [np.ones(1_500_000, np.float32) for _ in range(3)]  # 6 MB each: 4,400 pages in all

update()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    update()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these parameters")
def test_memory_that_is_freed_and_taken_again_is_not_cleared_again() -> None:
    # when a program makes and drops the same large arrays, as each update does
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=60
    )

    # then the system is not asked for their pages again
    assert int(done.stdout) < 500


# A main thread that never comes back from a library: a lock taken twice in C. It lets other threads
# run, and goes on waiting after a signal.
STUCK = """
import ctypes
from impala_redis.workers import stopping

stop = stopping.StopFlag()
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
libc.pthread_mutex_lock(mutex)
print("stuck", flush=True)
libc.pthread_mutex_lock(mutex)
"""


# A main thread whose environment has an event loop, which takes the signals for itself.
LOOPED = """
import signal, time
from impala_redis.workers import stopping

stop = stopping.StopFlag()
signal.set_wakeup_fd(-1)
print("stuck", flush=True)
while True:
    time.sleep(1000)
"""


@pytest.mark.parametrize("code", [STUCK, LOOPED])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_a_program_that_is_stuck_in_a_library(
    first: signal.Signals, code: str
) -> None:
    # given
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=before_exec) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"stuck\n"

        # when it is asked to stop, then the first one does not end it
        program.send_signal(first)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.2)

        # but Ctrl-C after it does, and a SIGTERM between them, which comes soon, does not
        program.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.2)
        program.send_signal(signal.SIGINT)
        try:
            assert program.wait(5) == 130
        finally:
            program.kill()


@pytest.mark.fault(47)
@pytest.mark.parametrize("code", [STUCK, LOOPED])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("again", "bound"),
    [(signal.SIGINT, "TYPED_AFTER_S"), (signal.SIGTERM, "AGAIN_AFTER_S")],
)
def test_a_second_signal_ends_a_program_that_is_stuck_only_if_it_comes_late(
    again: signal.Signals, bound: str, first: signal.Signals, code: str
) -> None:
    # given
    code = code.replace("stop =", f"stopping.{bound} = 1.0\nstop =", 1)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=before_exec) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"stuck\n"

        # when it is asked to stop by several ways that mean the same, then that does not end it
        for number in (first, again, again):
            program.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                program.wait(0.1)

        # but one that comes later does
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(1.2)
        program.send_signal(again)
        try:
            assert program.wait(5) == 130
        finally:
            program.kill()


@pytest.mark.processes
def test_a_learner_that_waits_for_a_pipe_ends_by_two_sigterms(programs: Programs) -> None:
    # given a config that comes through a pipe, and nobody who writes it
    pipe = programs.folder / "pipe"
    os.mkfifo(pipe)
    learner = programs.start("impala-learner", "--config", "pipe")

    def opened() -> int:
        with contextlib.suppress(OSError):  # nobody reads it yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    writing = eventually(opened)

    # when the first one is not enough
    learner.send(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        learner.process.wait(stopping.AGAIN_AFTER_S + 0.5)

    # then the second one is
    learner.send(signal.SIGTERM)
    assert learner.code(5) == 130
    os.close(writing)


@pytest.mark.parametrize("pid", ["", "0", "-1", "9" * 10, "9" * 200, "²", "١", "1 ", "0x1", "1e3"])
def test_a_holder_with_a_process_number_that_is_none_is_not_known_to_be_gone(pid: str) -> None:
    # given the name that a process of this machine has, with another number
    host, _, rest = holder_name().rpartition(":")
    assert is_dead_here(f"{host}:{pid}#{rest.partition('#')[2]}") is False
