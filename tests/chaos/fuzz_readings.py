"""A seeded fuzzer of what impala-status reads: heartbeats, books, lease, figures, weights, spec.

Hostile texts stand in the place of what the server's functions reply; all the rest is the program's
own: it parses them, makes a status of two readings, and prints it as text, on a screen and as JSON.
`PYTHONPATH=.. python fuzz_readings.py SEED COUNT` prints a report as JSON, as fuzz.py does.
"""

import io
import json
import math
import random
import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console

from chaos.fuzz import MOST_FAILURES, SLOW_S, peak_mb, resident_mb
from impala_redis.common.errors import RunMissing
from impala_redis.common.records.figures import FIGURES
from impala_redis.common.transport.monitor import (
    MOST_BYTES,
    MOST_BYTES_OF_A_NUMBER,
    MonitorLink,
)
from impala_redis.common.transport.situation import summary
from impala_redis.workers.overview import as_text, rows
from impala_redis.workers.process import holder_name, is_dead_here
from impala_redis.workers.screen import Screen

Text = bytes | None

NUMBERS = [
    *(b"0", b"1", b"-1", b"7", b"-0", b"00012", b"1_000", b"+5", b" 3 ", b"1.5", b"1e3", b"0x1f"),
    *(b"9007199254740993", b"9223372036854775807", b"-9223372036854775808", b"9" * 30, b"9" * 31),
    *(b"-" + b"9" * 29, b"1e308", b"-1e308", b"1.7976931348623157e308", b"5e-324", b"1e999"),
    *(b"nan", b"-nan", b"inf", b"-inf", b"Infinity", b"1" * 200, b"1." + b"0" * 190),
    *("²".encode(), "٣".encode(), "１２".encode()),
]
TEXTS = [
    *(
        b"",
        b"x",
        b"host:1",
        b"here:12#34-5",
        b"(104857600 bytes)",
        b"\xff\xfe\x00",
        b"\x1b]0;x\x07",
    ),
    *(b"\n\r\t", b"\x00", "\u202e".encode(), "\U0001f600".encode() * 50, b"[red]x[/red]", b"{}"),
    *(b"[/]", b":smile:", b"%s%n{0}", b"h" * 200, b"#" * 200, b":" * 200, "é".encode() * 100),
]
SPECS = [b"{}", b"[]", b"null", b"[" * 900, b'{"queue_blocks": 1e999}', b'{"a": ' * 500, b"\xff"]


class HostileLink(MonitorLink):
    """A link whose server replies what the fuzzer draws."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__("redis://127.0.0.1:1/0", "r", "fuzz", self._is_gone_here)
        self._draw = draw
        self.texts = 0  # drawn
        self.holders = [holder_name().encode(), b"%s:1#1-1" % holder_name().split(":")[0].encode()]

    def _is_gone_here(self, holder: str) -> bool:
        return is_dead_here(holder)

    def text(self, most: int = MOST_BYTES) -> Text:
        """A number, another text, one with a byte changed, or nothing; `most` bytes at most."""
        draw = self._draw
        self.texts += 1
        kind = draw.random()
        if kind < 0.1:
            return None
        if kind < 0.5:
            found = str(draw.choice((1, 10, 10**9)) * draw.randrange(100)).encode()
        else:
            found = draw.choice(NUMBERS if kind < 0.8 else TEXTS)
        if draw.random() < 0.1 and found:
            at = draw.randrange(len(found))
            found = found[:at] + bytes([draw.randrange(256)]) + found[at + 1 :]
        return found[:most] or None

    def _call(self, function: str, keys: Any, *arguments: Any) -> Any:
        draw = self._draw
        if function == "read_books":
            counters = [self.text(MOST_BYTES_OF_A_NUMBER) for _ in arguments[1:]]
            lengths = [draw.choice((0, 3, 10**9, None)) for _ in keys[1:]]
            return [None if draw.random() < 0.05 else counters, *lengths]
        if function == "read_learner":
            host, _, rest = self.holders[0].partition(b":")
            odd = host + b":" + (self.text() or b"") + b"#" + rest.partition(b"#")[2]
            holder = draw.choice([*self.holders, odd, self.text() or b""])[:MOST_BYTES]
            lease = None if draw.random() < 0.05 else [holder, draw.choice((-2, -1, 0, 900, 2**62))]
            names = [*FIGURES, "epoch", "lease_s", "lease_epoch", "figures_age_s", "infos_x"]
            names += [f"{of}_share:{rank}" for of in ("wait", "standby") for rank in (0, 1, "\x1b")]
            pairs: list[Text] = []
            for name in draw.sample(names, 12):
                pairs += [b"learner:" + name.encode(), self.text()]
            pairs += [
                self.text() or b"x",
                self.text(),
                b"learner:episode_" + (self.text() or b""),
                b"1",
            ]
            epoch = None if draw.random() < 0.05 else [self.text()]
            return [lease, epoch, None if epoch is None else pairs, [b"1700000000", b"999999"]]
        if function == "read_names":
            more = draw.random() < 0.1
            names_found = [
                (str(keys[0]).removesuffix("stats") + "actor:").encode() + (self.text() or b"")
                for _ in range(draw.randrange(3))
            ]
            return [b"17" if more else b"0", draw.choice((0, 0, 5)), *names_found]
        found: list[Any] = []
        for key in keys:
            fields: list[Any] = [self.text() for _ in arguments[1:]]
            if str(key).endswith(":spec"):
                fields = [self.text(), draw.choice([None, *SPECS])]
            found.append(None if draw.random() < 0.05 else fields)
        return found

    def read_memory(self) -> dict[str, Any] | None:
        """The server's own INFO is not written by others."""
        return None


def read(link: HostileLink, screen: Screen, shown: io.StringIO) -> str:
    """How one status ended: "shown", or the name of the error."""
    try:
        readings = [link.read() for _ in range(2)]
    except RunMissing:
        return "missing"
    readings[1]["at"] = readings[0]["at"] + 1.0
    if link._draw.random() < 0.8:  # of the same learner, so that there are rates
        for part, name in (("books", "generation"), ("learner", "epoch")):
            readings[1][part][name] = readings[0][part][name]
    status = summary(readings)
    text = as_text("r", status)
    for line in text.split("\n"):
        assert line.isprintable(), line
    assert len(text) < 20_000, len(text)
    loaded = json.loads(json.dumps(status, allow_nan=False))
    for name, value in loaded["learner"]["figures"].items():
        assert math.isfinite(value), name
    if link._draw.random() < 0.02:  # drawing takes longer than all the rest
        screen.show(rows("r", status), status, None)
        shown.seek(0)
        shown.truncate()
    return "shown"


def run(seed: int, count: int) -> dict[str, Any]:
    """Reads `count` hostile runs and reports."""
    draw = random.Random(seed)
    link, shown = HostileLink(draw), io.StringIO()
    screen = Screen(Console(file=shown, width=120, height=40))
    outcomes: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    slowest_s = 0.0
    for _ in range(100):
        read(link, screen, shown)
    before_mb = resident_mb()
    for number in range(count):
        state = draw.getstate()
        started = time.thread_time()
        try:
            outcomes[read(link, screen, shown)] += 1
        except Exception as error:
            failures.append({"number": number, "error": repr(error)[:300]})
            if len(failures) >= MOST_FAILURES:
                break
            continue
        took_s = time.thread_time() - started
        if took_s > SLOW_S:  # what the machine did meanwhile is not the reader's
            draw.setstate(state)
            started = time.thread_time()
            read(link, screen, shown)
            took_s = min(took_s, time.thread_time() - started)
        slowest_s = max(slowest_s, took_s)
    return {
        "seed": seed,
        "count": count,
        "texts": link.texts,
        "outcomes": dict(sorted(outcomes.items())),
        "failures": failures,
        "slowest_s": slowest_s,
        "growth_mb": peak_mb() - before_mb,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
