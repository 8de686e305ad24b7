"""What every program sets up for itself."""

import platform
import subprocess
import sys

import pytest

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
