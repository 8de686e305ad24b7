"""One actor to one learner through the server, beside what redis-benchmark pushes there."""

import csv
import shlex
import shutil
import statistics
import subprocess
import time
from contextlib import closing

import click
import redis

from bench.load import roles
from bench.load.crew import Server
from bench.targets import Grid, Target
from bench.transport.stage import Bench, Figures, Meter, Part, stage_on

SIZES = {"64k": 65_536, "512k": 524_288, "1m": 1_048_576}
SOCKETS = {"tcp": "TCP", "unix": "Unix socket"}
WORDS = {"64k": "64 KiB", "512k": "512 KiB", "1m": "1 MiB"}
# Blocks between the actor and the learner, and the most that it claims at once.
CREDITS, MOST = 16, 8
# redis-benchmark's list is deleted when it has grown by this much.
SLICE_NBYTES = 128 << 20
PROGRAMS = ("redis-benchmark", "valkey-benchmark")
NO_PROGRAM = (
    f"moved: neither {' nor '.join(PROGRAMS)} is on PATH, so there is no share; "
    "Debian's package redis-tools has the first"
)


def benchmark_program() -> str | None:
    """The program that measures what a server can take; None where it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def moved(bench: Bench) -> Figures:
    """One actor to one learner, nothing dropped, and redis-benchmark's pushes before and after."""
    program = benchmark_program()
    figures: Figures = {}
    for size, nbytes in SIZES.items():
        for kind in SOCKETS:
            with Server(bench.folder) as server:
                theirs = Pushes(program, server, kind, nbytes) if program else None
                if theirs:
                    theirs.measure(bench.seconds / 2)
                row = _moved(bench, server, kind, nbytes)
                if theirs:
                    theirs.measure(bench.seconds / 2)
                    row["benchmark_blocks_per_s"] = theirs.per_s
                    row["benchmark_mb_per_s"] = theirs.per_s * row["nbytes"] / 1e6
                    row["share"] = row["blocks_per_s"] / theirs.per_s
            figures |= {f"{size}_{kind}_{name}": value for name, value in row.items()}
    return figures


def _moved(bench: Bench, server: Server, kind: str, nbytes: int) -> Figures:
    """The figures of an actor and a learner in processes of their own."""
    spec = roles.spec_of_size(nbytes, queue_blocks=CREDITS)
    message_nbytes = len(roles.message_of(spec))
    url = server.url if kind == "tcp" else server.socket_url
    with stage_on(server, spec, CREDITS, url, most=MOST) as stage:
        with closing(Meter(stage)) as meter:
            before = meter.read()
            produced = stage.produce("actor", 1, bench.seconds)()
            after = meter.read()
        learned, books = stage.end()
    seconds, window_s = bench.seconds, after.at_s - before.at_s
    return {
        "nbytes": message_nbytes,
        "blocks_per_s": learned["consumed"] / seconds,
        "mb_per_s": learned["consumed"] * message_nbytes / seconds / 1e6,
        "push_p50_ms": statistics.median(produced["push_ms"]),
        "claim_p50_ms": statistics.median(learned["claim_ms"]),
        "server_cores": (after.server_cpu_s - before.server_cpu_s) / window_s,
        "actor_cores": produced["cpu_s"] / seconds,
        "learner_cores": (after.learner_cpu_s - before.learner_cpu_s) / window_s,
        "dropped": books["dropped_oldest"],
    }


class Pushes:
    """redis-benchmark with one client, in slices, because its list grows until it is deleted."""

    LIST = "mylist"

    def __init__(self, program: str, server: Server, kind: str, nbytes: int) -> None:
        where = ["-s", str(server.socket)] if kind == "unix" else ["-p", str(server.port)]
        self._command = [program, *where, "-c", "1", "-t", "rpush", "-d", str(nbytes), "--csv"]
        self._url, self._nbytes = server.url, nbytes
        self._pushes = self._taken_s = 0.0

    @property
    def per_s(self) -> float:
        """Pushes per second over all measured slices."""
        return self._pushes / self._taken_s

    def measure(self, seconds: float) -> None:
        """Pushes for about `seconds`; the very first slice, into fresh memory, is left out."""
        pushes = max(8, round(min(1.0, seconds) * SLICE_NBYTES / self._nbytes))
        if not self._pushes:
            self._slice(pushes)
        until = time.monotonic() + seconds
        while True:
            self._taken_s += pushes / self._slice(pushes)
            self._pushes += pushes
            if time.monotonic() >= until:
                return

    def _slice(self, pushes: int) -> float:
        command = [*self._command, "-n", str(pushes)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"{shlex.join(command)} failed: {done.stderr.strip()}")
        with redis.Redis.from_url(self._url) as client:
            client.delete(self.LIST)
        return float(list(csv.DictReader(done.stdout.splitlines()))[-1]["rps"])


PARTS = {
    "moved": Part(
        moved,
        [
            Target(f"{size}_{kind}_share", f"{words}, {socket}: of redis-benchmark", ">=", 0.6, "x")
            for size, words in WORDS.items()
            for kind, socket in SOCKETS.items()
        ],
        Grid(
            "one actor to one learner; the limit is redis-benchmark -c 1 -t rpush",
            {
                f"{size}_{kind}": f"{words}, {socket}"
                for size, words in WORDS.items()
                for kind, socket in SOCKETS.items()
            },
            {
                "blocks_per_s": "blocks/s",
                "mb_per_s": "MB/s",
                "benchmark_blocks_per_s": "limit/s",
                "benchmark_mb_per_s": "limit MB/s",
                "share": "share",
                "push_p50_ms": "push p50 ms",
                "claim_p50_ms": "claim p50 ms",
                "server_cores": "server's cores",
                "actor_cores": "actor's",
                "learner_cores": "learner's",
            },
        ),
    )
}
