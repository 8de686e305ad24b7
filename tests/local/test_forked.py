"""Programs as forks: what of their parent they find, how they end, and how they are waited for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import eventually, is_running

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux only"),
]

# A process that forks one program; the tests themselves have threads. It prints what `then` does.
PARENT = """
import atexit, contextlib, ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from impala_redis.common.local.forked import can_fork, fork

LOG = Path(sys.argv[1])

def start(program, *shown_as, pass_fds=()):
    assert can_fork()
    return fork(
        program,
        shown_as or ["impala-test"],
        log_file=LOG,
        death_signal=signal.SIGTERM,
        environment={"ONLY": "this"},
        pass_fds=pass_fds,
    )

"""


def of_parent(tmp_path: Path, code: str) -> tuple[str, str]:
    """What a parent with that code prints, and the log of the program that it has forked."""
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PARENT + code, str(log)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"SECRET": "of the parent"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, log.read_text()


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("pass", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit()", 0, ""),
        ("sys.stdout.write('half a line')", 0, "half a line"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("ctypes.CDLL(None).puts(b'in C')", 0, "in C\n"),
        ("atexit.register(print, 'at the end')", 0, "at the end\n"),
        ("threading.Timer(0.1, print, ['of a thread']).start()", 0, "of a thread\n"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_ends_as_any_program_does(tmp_path: Path, how: str, code: int, words: str) -> None:
    printed, log = of_parent(
        tmp_path, f"def program():\n    {how}\n\nprint(start(program).wait())\n"
    )
    assert (printed, log) == (f"{code}\n", words)


def test_an_error_of_its_own_is_in_its_log(tmp_path: Path) -> None:
    printed, log = of_parent(tmp_path, "print(start(lambda: 1 // 0).wait())\n")
    assert printed == "1\n"
    assert log.startswith("Traceback")
    assert log.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_it_finds_nothing_of_its_parent(tmp_path: Path) -> None:
    # given a parent with an open file, half a line unwritten, and something to do at its own end
    code = """
@contextlib.contextmanager
def leaving():
    yield
    print(", left", end="")

def program():
    folder = Path("/proc/self/fd")
    files = {int(p.name): os.readlink(p) for p in list(folder.iterdir()) if os.path.lexists(p)}
    print(dict(os.environ), os.getsid(0) == os.getpid(), sep="\\n")
    print([files[number] for number in (0, 1, 2)] == ["/dev/null", str(LOG), str(LOG)])
    print(sorted(files) == [0, 1, 2, writing], os.write(writing, b"handed over"))
    print(Path("/proc/self/comm").read_text() + Path("/proc/self/cmdline").read_text())

reading, writing = os.pipe()
with leaving(), Path("/dev/zero").open():
    print("half a line", end="")
    code = start(program, "impala-a-program", "--its", "options", pass_fds=[writing]).wait()
    os.close(writing)
    print(", then", code, os.read(reading, 100).decode(), end="")
"""
    # when
    printed, log = of_parent(tmp_path, code)

    # then
    assert printed == "half a line, then 0 handed over, left"
    environment, *facts, name, command = log.splitlines()
    assert environment == "{'ONLY': 'this'}"
    assert facts == ["True", "True", "True 11"]
    assert name == "impala-a-progra"  # the system keeps 15 characters
    assert command.rstrip("\0").split("\0") == ["impala-a-program", "--its", "options"]


def test_it_can_be_waited_for_and_ended(tmp_path: Path) -> None:
    code = """
program = start(signal.pause)
try:
    program.wait(0.01)
except subprocess.TimeoutExpired:
    print(program.poll(), program.returncode)
program.terminate()
print(program.wait(10), program.poll(), program.returncode)
program.terminate()
program.kill()
"""
    assert of_parent(tmp_path, code)[0] == "None None\n-15 -15 -15\n"


def test_a_process_with_another_thread_is_not_forked(tmp_path: Path) -> None:
    code = """
goes_on = threading.Event()
thread = threading.Thread(target=goes_on.wait)
thread.start()
print(can_fork())
goes_on.set()
thread.join()
print(can_fork(), start(print).wait())
"""
    assert of_parent(tmp_path, code)[0] == "False\nTrue 0\n"


def test_a_process_with_a_thread_of_a_library_in_c_is_not_forked(tmp_path: Path) -> None:
    code = """
C = ctypes.CDLL(None)
C.pthread_create(ctypes.byref(ctypes.c_ulong()), None, C.pause, None)
print(threading.active_count(), can_fork())
"""
    (tmp_path / "log").touch()
    assert of_parent(tmp_path, code)[0] == "1 False\n"


def test_a_thread_that_was_just_joined_is_in_nobodys_way(tmp_path: Path) -> None:
    code = """
def can_fork_after_a_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return can_fork()

print(all(can_fork_after_a_thread() for _ in range(200)))
"""
    (tmp_path / "log").touch()
    assert of_parent(tmp_path, code)[0] == "True\n"


def test_a_kernel_without_handles_of_processes_is_asked_for_no_fork(tmp_path: Path) -> None:
    code = """
def refuse(pid):
    raise OSError(38, "Function not implemented")

os.pidfd_open = refuse
print(can_fork())
"""
    (tmp_path / "log").touch()
    assert of_parent(tmp_path, code)[0] == "False\n"


def test_a_program_whose_exit_code_the_system_has_dropped_is_waited_for(tmp_path: Path) -> None:
    # given a parent with SIGCHLD ignored, whose program ends just before it is waited for
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
program = start(lambda: time.sleep(0.05))
open_it = os.pidfd_open

def open_it_late(pid):
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.001)
    return open_it(pid)

os.pidfd_open = open_it_late
print(program.wait(10))
"""
    assert of_parent(tmp_path, code)[0] == "0\n"


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    # given
    code = PARENT + "print(start(signal.pause).pid, flush=True)\nsignal.pause()\n"
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)

        # when
        parent.send_signal(signal.SIGKILL)

    # then
    eventually(lambda: not is_running(pid), what="the program to end")
