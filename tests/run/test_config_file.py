"""A config's file: written, read back, and refused with its path where it is not one."""

import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.errors import ConfigError
from impala_redis.common.presets.table import PRESETS, preset
from impala_redis.common.run.config import Config
from impala_redis.common.run.config import settings as all_settings
from impala_redis.common.run.config_file import read_toml, to_toml

quick = settings(max_examples=50, deadline=None, derandomize=True)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "resolved", [Config(), *map(preset, sorted(PRESETS))], ids=["defaults", *sorted(PRESETS)]
)
def test_a_written_config_reads_back_the_same(resolved: Config, tmp_path: Path) -> None:
    # given
    path = write(tmp_path, to_toml(resolved))

    # when
    values = read_toml(path)

    # then
    assert list(values) == [setting.key for setting in all_settings()]
    assert Config().replace(values) == resolved


@pytest.mark.parametrize("env", ['my "module":Id', "back\\slash", "", "# no comment", "größer"])
def test_a_written_text_reads_back_whatever_it_holds(env: str, tmp_path: Path) -> None:
    resolved = Config().replace({"env": env})
    assert read_toml(write(tmp_path, to_toml(resolved)))["env"] == env


@st.composite
def _configs(draw: st.DrawFn) -> dict[str, Any]:
    """Any allowed value of a few settings of each kind."""
    finite = st.floats(-1e30, 1e30)
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "env": st.text(max_size=20),
                "hidden_sizes": st.lists(st.integers(1, 65_536), max_size=4),
                "seed": st.integers(0, 2**62),
                "stop_at_return": st.none() | finite,
                "reward_scale": finite,
                "discounting": st.floats(0, 1),
                "learning_rate": st.floats(0, 1e30),
                "activation": st.sampled_from(["tanh", "relu"]),
                "max_policy_lag": st.none() | st.integers(0, 10**9),
            },
        )
    )


@quick
@given(_configs())
def test_any_allowed_config_reads_back_the_same(values: dict[str, Any]) -> None:
    # given
    resolved = Config().replace(values)

    # when
    tables = tomllib.loads(to_toml(resolved))

    # then
    flat = {key: value for table in tables.values() for key, value in table.items()}
    assert Config().replace(flat) == resolved


def test_tables_in_a_file_only_group(tmp_path: Path) -> None:
    # given
    flat = write(tmp_path, 'batch_size = 7\nlambda = 0.5\nclip_pg_rho = "none"\n')
    expected = {"batch_size": 7, "lambda": 0.5, "clip_pg_rho": "none"}
    assert read_toml(flat) == expected

    # when
    grouped = write(
        tmp_path, '[training]\nbatch_size = 7\n[anything]\nlambda = 0.5\nclip-pg-rho = "none"\n'
    )

    # then
    assert read_toml(grouped) == expected


@pytest.mark.parametrize("text", ["batchsize = 7", "[training]\nbatchsize = 7"])
def test_an_unknown_key_in_a_file_is_refused_with_a_near_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"'batchsize'; did you mean batch_size\?"):
        read_toml(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    ["batch_size = {a = 1}", "env = 2024-01-01", "hidden_sizes = 64", "env = 5", "seed = [[1]]"],
)
def test_a_value_of_a_strange_type_in_a_file_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, f"[table]\n{text}")
    with pytest.raises(ConfigError, match=r" must be "):
        Config().replace(read_toml(path))


@pytest.mark.parametrize(
    "data",
    [b"batch_size =", b"batch_size = 1\nbatch_size = 2", b"= 3", b"\xff\xfe", b"a = " + b"[" * 9],
    ids=["no value", "twice", "no key", "not text", "not closed"],
)
def test_a_file_that_is_not_toml_is_refused_with_its_path(tmp_path: Path, data: bytes) -> None:
    # given
    path = tmp_path / "broken.toml"
    path.write_bytes(data)

    # when / then
    with pytest.raises(ConfigError, match=r"the config file .*broken\.toml is not TOML"):
        read_toml(path)


@pytest.mark.parametrize(
    "text",
    [
        f"a{'.a' * 100_000} = 1",
        f"[a{'.a' * 30_000}]",
        f"x = {{a{'.a' * 30_000} = 1}}",
        f"a{'.a' * 2400} = 1\n" * 13,
        "#\n" * 40_000,
        "".join(f"k{n} = 0\n" for n in range(10_000)),
        "".join(f"[{'.'.join('a' * n)}]\n" for n in range(1, 250)),
        f"{'x' * 4000} = 1",
    ],
    ids=[
        "dots",
        "a table of dots",
        "dots inside",
        "lines of dots",
        "lines",
        "keys",
        "tables in tables",
        "a long name",
    ],
)
def test_a_file_made_to_exhaust_its_reader_is_refused_at_once(tmp_path: Path, text: str) -> None:
    # when
    path, began_s = write(tmp_path, text), time.thread_time()
    with pytest.raises(ConfigError) as caught:
        Config().replace(read_toml(path) | {"batch_size": 0})

    # then
    assert time.thread_time() - began_s < 5.0  # of dots alone it would be minutes
    assert len(str(caught.value)) < 500


def test_a_config_may_come_through_a_link_or_a_pipe(tmp_path: Path) -> None:
    # given what the user has named, as by `--config <(...)`
    file = write(tmp_path, "seed = 3")
    (tmp_path / "link").symlink_to(file)
    reading, writing = os.pipe()
    os.write(writing, file.read_bytes())
    os.close(writing)

    # when / then
    assert read_toml(tmp_path / "link") == {"seed": 3}
    assert read_toml(Path(f"/dev/fd/{reading}")) == {"seed": 3}
    os.close(reading)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_in_front_of_a_file_is_passed_over(tmp_path: Path, end: str) -> None:
    # given a file as the Notepad of Windows writes it
    path = tmp_path / "windows.toml"
    text = end.join(["[training]", "seed = 3", "batch_size = 2", ""])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())

    # then
    assert read_toml(path) == {"seed": 3, "batch_size": 2}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_file_in_a_wider_encoding_gets_the_remedy(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "wide.toml"
    path.write_bytes("seed = 3\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"wide\.toml .*UTF-16 or UTF-32: save it as UTF-8"):
        read_toml(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError, match=rf"cannot read the config file {path}: "):
        read_toml(path)
