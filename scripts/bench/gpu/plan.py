"""What a part of the kit is told, and where it leaves its rows."""

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
# What one row of a part's results holds, for JSON.
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a part is to do, and until when."""

    part: str
    device: str  # "cuda", or "cpu" for the short form
    cores: int  # that this process may use
    ends_at: float  # of time.monotonic(), by when the part has ended
    folder: str  # where it may leave files, which are lost afterwards
    rows: str  # the file that its rows are added to
    networks: tuple[str, ...]  # of parts a and e

    @property
    def left_s(self) -> float:
        """Seconds that are left; below 0 when the part should have ended."""
        return self.ends_at - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        """Whether this is the full form."""
        return self.device == "cuda"

    def add(self, row: Row) -> None:
        """Keeps a row, and says so."""
        with Path(self.rows).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self.part} | row) + "\n")
        print(json.dumps(row)[:300], flush=True)

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote."""
        found = json.loads(text)
        return cls(**found | {"networks": tuple(found["networks"])})


def run(part: Callable[[Plan], None]) -> None:
    """Does a part by the plan in the first argument; a failure ends it with its traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends first
    part(Plan.from_json(sys.argv[1]))
