#!/usr/bin/env bash
# Sets up .venv if need be, and runs format, lint, types and tests. Arguments go to pytest; without any,
# the tests run two at a time, first those that start no programs; at last, one by one, those that
# judge the pace of programs. --cold starts each program by an interpreter of its own, as a user does.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh atari,box2d,dev,minigrid,report,video

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
pytest=(.venv/bin/python -m pytest)
"${pytest[@]}" -m "not processes and not timed" --numprocesses 2
"${pytest[@]}" -m "processes and not timed" --numprocesses 2 --dist worksteal
exec "${pytest[@]}" -m timed
