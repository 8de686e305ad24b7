"""Real servers and real processes, started by the suite and ended by it."""

import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.servers import OpenServer, OwnServer
from impala_redis.common.local.server_program import SERVER_VARIABLE
from support import Programs, usable_servers
from warm.start import WarmParent

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run what is too long for every change")
    parser.addoption("--cold", action="store_true", help="start programs as a user does, slowly")
    parser.addoption("--chaos-seed", type=int, default=0, help="seed of what the faults draw")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves what is too long for every change to `./scripts/test.sh --full`."""
    for item in items:
        item.user_properties += [("fault", m.args[0]) for m in item.iter_markers("fault")]
    if config.getoption("--full"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """With --full, one line for each row of the fault matrix."""
    if not config.getoption("--full"):
        return
    rows: dict[int, list[pytest.TestReport]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, row in report.user_properties:
                if name == "fault":
                    rows.setdefault(row, []).append(report)
    terminalreporter.section("fault matrix")
    for row, reports in sorted(rows.items()):
        outcomes = Counter(report.outcome for report in reports)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        seconds = sum(report.duration for report in reports)
        terminalreporter.line(f"row {row:>2}  {counts:<12} {seconds:7.1f} s")


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """The seed of whatever a fault draws at random."""
    return int(request.config.getoption("--chaos-seed"))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """What a developer has in IMPALA_* must not change what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("IMPALA_"):
                patch.delenv(name)
        patch.setenv("IMPALA_DEVICE", "cpu")  # where there is a GPU too: many programs at once
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenServer]:
    """A server for the whole session; tests keep apart by the run's name."""
    with OpenServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session", params=usable_servers(), ids=lambda binary: binary.name)
def any_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenServer]:
    """As `redis_server`, once for each kind of server that is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVER_VARIABLE, str(request.param))
        running = OpenServer(tmp_path_factory.mktemp("server"))
    with running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    """A server for this test alone, which may do with it what it likes."""
    with OwnServer(tmp_path) as running:
        yield running


@pytest.fixture
def redis_url(redis_server: OpenServer) -> str:
    """The session's server, over its Unix socket."""
    return redis_server.url


@pytest.fixture
def run_name(request: pytest.FixtureRequest) -> str:
    """A run that no other test uses."""
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:40] + f"-{next(_numbers)}"


@pytest.fixture
def raw(redis_server: OpenServer) -> Iterator[redis.Redis]:
    """A plain client, as an operator's redis-cli would be."""
    client = redis.Redis.from_url(redis_server.url)
    yield client
    client.close()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's working directory; their modules, and what these register, are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    import gymnasium  # late: most tests do without

    theirs = {
        name
        for name, module in sys.modules.items()
        if (getattr(module, "__file__", None) or "").startswith(f"{tmp_path}/")
    }
    for name in theirs:
        del sys.modules[name]
    for name, spec in list(gymnasium.registry.items()):
        if getattr(spec.entry_point, "__module__", "") in theirs:
            del gymnasium.registry[name]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small layers take longer in several threads of torch, which wait for each other."""
    import torch  # late: most tests do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def warm_parent(request: pytest.FixtureRequest) -> Iterator[WarmParent | None]:
    """Forks the programs of this session; None with --cold."""
    if request.config.getoption("--cold"):
        yield None
        return
    parent = WarmParent()
    yield parent
    parent.end()


@pytest.fixture
def programs(tmp_path: Path, warm_parent: WarmParent | None) -> Iterator[Programs]:
    """Starts the installed commands; whatever still runs at the end is ended."""
    started = Programs(tmp_path, warm_parent)
    yield started
    started.end()
