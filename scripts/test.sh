#!/usr/bin/env bash
# Sets up .venv if need be, and runs format, lint, types and tests. Arguments go to pytest; without any,
# tests run beside each other in three processes, since programs wait a lot, and at last, one by one,
# those that judge the pace of programs. --cold starts each program by an interpreter of its own, as a
# user does.
#   scripts/test.sh --full    what is too long for every change, too: before a release
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh atari,box2d,dev,envpool,minigrid,mujoco,report,video

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
if [ $# -gt 0 ] && [ "$*" != --full ]; then
    exec .venv/bin/python -m pytest "$@"
fi
.venv/bin/python -m pytest "$@" -m "not timed" --numprocesses 3 --dist worksteal
exec .venv/bin/python -m pytest "$@" -m timed
