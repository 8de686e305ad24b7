#!/usr/bin/env bash
# Sets up .venv if need be, and runs format, lint, types and tests. Arguments go to pytest; without any,
# tests that start no programs run two at a time, then those that do, alone: what they await is timed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh atari,box2d,dev,minigrid,report,video

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
.venv/bin/python -m pytest -m "not processes" --numprocesses 2
exec .venv/bin/python -m pytest -m processes
