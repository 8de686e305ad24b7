"""How programs begin and end, whatever the system does: early signals, full outputs, log lines."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import BIN, eventually

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full and namespaces are Linux's")


# Process 1.


def handles_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, by the kernel's word."""
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) & 1 << (signal.SIGTERM - 1))


def in_a_namespace(*command: str) -> subprocess.Popen[bytes]:
    """Starts a command as process 1 of a namespace of its own; skips where that is not allowed."""
    unshare = shutil.which("unshare")
    words = [str(unshare), "--fork", "--pid", "--mount-proc", "--kill-child"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces for this user")
    return subprocess.Popen([*words, *command], stdout=subprocess.DEVNULL)


@linux
@pytest.mark.processes
@pytest.mark.parametrize("program", ["impala-actor", "impala-learner"])
def test_process_1_ends_on_a_signal_before_its_imports_are_done(program: str) -> None:
    # given a program that begins as a container's process 1
    options = ["--run", "x", "--redis-url", "redis://127.0.0.1:1/0", "--wait-redis-s", "60"]
    options += ["--env", "CartPole-v1"] if program == "impala-learner" else []
    with in_a_namespace(str(BIN / program), *options) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        pid = int(eventually(children.read_text))

        # when it is asked to stop as soon as the kernel would let it know
        eventually(lambda: handles_sigterm(pid))
        loaded = Path(f"/proc/{pid}/maps").read_text()
        os.kill(pid, signal.SIGTERM)

        # then it ends, though it has hardly begun
        assert outer.wait(10) == 128 + signal.SIGTERM
        assert "numpy" not in loaded


def test_another_process_keeps_the_systems_handler() -> None:
    code = "import signal, impala_redis.workers; print(int(signal.getsignal(signal.SIGTERM)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{int(signal.SIG_DFL)}\n"
