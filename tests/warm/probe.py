"""Says what a program finds as it begins and what its libraries are set to, or ends as asked.

probe.py find | code N | raise | wait
"""

import gc
import json
import logging
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any


def found() -> dict[str, Any]:
    """What belongs to this process, and may not depend on how it was started."""
    return {
        "argv": sys.argv,
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": str(Path.cwd()),
        "path": sys.path,
        "flags": str(sys.flags),
        "files": {fd: str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in ("0", "1", "2")},
        "open files": len(list(Path("/proc/self/fd").iterdir())),
        "streams": [
            (s.encoding, s.errors, s.line_buffering, s.isatty()) for s in (sys.stdout, sys.stderr)
        ],
        "signals": {n: str(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "family": [os.getppid(), os.getpgid(0), os.getsid(0)],
        "name": Path("/proc/self/comm").read_text(),
        "mask": os.umask(0o22),
        "limits": {
            name: resource.getrlimit(number)
            for name, number in vars(resource).items()
            if name.startswith("RLIMIT_")
        },
        "nice": os.nice(0),
        "processors": sorted(os.sched_getaffinity(0)),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "garbage": [gc.isenabled(), gc.get_threshold()],
        "turns": sys.getswitchinterval(),
        "log": [str(logging.getLogger().handlers), logging.getLogger().level],
    }


def find() -> None:
    """Prints it on a line, with the process's age and some random numbers."""
    report: dict[str, Any] = {"found": found()}

    from impala_redis.workers.process import process_age_s

    report["age_s"] = process_age_s()

    import numpy
    import torch
    from threadpoolctl import threadpool_info

    pools = sorted((p["internal_api"], p["num_threads"]) for p in threadpool_info())
    report["pools"] = [torch.get_num_threads(), torch.get_num_interop_threads(), pools]
    report["drawn"] = [random.random(), numpy.random.random(), torch.rand(1).item()]
    sys.stdout.write(json.dumps(report) + "\n")


def main() -> None:
    """Does what the first argument says."""
    match sys.argv[1:]:
        case ["find"]:
            find()
        case ["code", code]:
            sys.stdout.write("not a whole line")
            sys.exit(int(code))
        case ["raise"]:
            raise ValueError("as asked")
        case ["wait"]:
            sys.stdout.write("waiting\n")
            sys.stdout.flush()
            while True:  # a signal that comes just before a sleep does not shorten it
                time.sleep(0.1)


if __name__ == "__main__":
    main()
