"""Runs a part of the kit as a program of its own, within its time."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from bench.gpu.plan import ROOT, Plan

# Files of the results: the rows as they came, and all that the parts said.
ROWS, LOG = "rows.jsonl", "kit.log"
# What a part is told to keep free of its time, and how long it may take to end when it is made to.
MARGIN_S, GRACE_S = 2.0, 3.0
MODULES = "bench.gpu"
LAST_LINES = 15


def done_by(
    module: str, part: str, device: str, limit_s: float, out: Path, networks: Sequence[str] = ()
) -> dict[str, Any]:
    """What a part has come to: its rows, its seconds, and why it failed; empty if it did not."""
    began, rows, log = time.monotonic(), out / ROWS, out / LOG
    killed_at = began + limit_s - GRACE_S
    with tempfile.TemporaryDirectory() as folder, log.open("ab") as output:
        start, cores = output.tell(), len(os.sched_getaffinity(0))
        place = (cores, killed_at - MARGIN_S, folder, str(rows), tuple(networks))
        plan = Plan(part, device, *place).to_json()
        code = run_limited([sys.executable, "-m", f"{MODULES}.{module}", plan], killed_at, output)
    said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    reasons = {0: "", None: f"it took longer than {limit_s:.0f} s"}
    failed = reasons.get(code, f"it ended with {code}")
    return {
        "rows": [row for row in filter(None, map(as_row, lines)) if row.pop("part") == part],
        "seconds": round(time.monotonic() - began, 1),
        "failed": failed and ": ".join([failed, *said[-1:]]),
        "last_lines": said[-LAST_LINES:] if failed else [],
    }


def as_row(line: str) -> dict[str, Any] | None:
    """A line of the file of rows; None for one that was cut short as its writer was ended."""
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row


def run_limited(command: Sequence[str], ends_at: float, output: IO[bytes]) -> int | None:
    """The exit code of a program that has until then; None when it had to be ended.

    Settings that IMPALA_* would give are kept from it.
    """
    path = os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IMPALA_")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        return process.wait(max(0.0, ends_at - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started there
                process.wait()
