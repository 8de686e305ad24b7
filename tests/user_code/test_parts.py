"""A user's own class or function by its name, and what is said where there is none."""

from pathlib import Path

import pytest

from impala_redis.common.errors import ConfigError, UnsupportedEnvironment
from impala_redis.common.user_code.modules import check_trusted
from impala_redis.common.user_code.parts import imported


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, in which a program is started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_part_is_found_in_a_module_beside_one_or_by_its_file(folder: Path) -> None:
    # given
    (folder / "parts_beside.py").write_text("class Net:\n    class Inner: pass\n")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "parts_by_file.py").write_text("def wrap(env): return env\n")

    # then
    assert imported("parts_beside:Net", "network").__name__ == "Net"
    assert imported("parts_beside:Net.Inner", "network").__name__ == "Inner"
    assert imported("deeper/parts_by_file.py:wrap", "wrapper")(3) == 3
    assert imported("collections:OrderedDict", "wrapper")() == {}


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("Net", "the network 'Net' must be module:name or path/to/file.py:name"),
        ("parts_bad:", "must be module:name"),
        ("parts_bad:Net()", "must be module:name"),
        ("parts_bad:lambda x", "must be module:name"),
        ("parts_bad:Missing", "the module 'parts_bad' has no class or function 'Missing'"),
        ("parts_bad:number", "has no class or function 'number'"),
        ("parts_nowhere:Net", "cannot be imported: ModuleNotFoundError.*PATH/parts_nowhere.py"),
        ("parts_raises:Net", r"cannot be imported: ZeroDivisionError.*parts_raises.py, line 1"),
        ("parts_exits:Net", r"cannot be imported: it calls sys.exit\(3\)"),
        ("parts_needs:Net", "cannot be imported: .*; install not_there_at_all"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_sentence(
    folder: Path, named: str, why: str
) -> None:
    # given
    (folder / "parts_bad.py").write_text("number = 3\n")
    (folder / "parts_raises.py").write_text("1 / 0\n")
    (folder / "parts_exits.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "parts_needs.py").write_text("import not_there_at_all\n")

    # when / then
    with pytest.raises(ConfigError, match=why) as caught:
        imported(named, "network")
    assert "\n" not in str(caught.value)


def test_an_error_at_the_import_keeps_the_users_own_frames(folder: Path) -> None:
    (folder / "parts_broken.py").write_text("def f():\n    return {}['gone']\nf()\n")
    with pytest.raises(ConfigError) as caught:
        imported("parts_broken:Net", "network")
    assert "parts_broken.py" in caught.value.frames
    assert "KeyError" in caught.value.frames


def test_a_part_that_only_a_run_has_named_is_refused_until_its_module_is_trusted(
    folder: Path,
) -> None:
    # given
    (folder / "parts_trusted.py").write_text("class Net: pass\n")
    words = ("network", "--network-module")

    # then
    with pytest.raises(ConfigError, match="add --network-module parts_trusted"):
        check_trusted("parts_trusted:Net", ("other",), *words)
    with pytest.raises(ConfigError, match="names a file"):
        check_trusted("/tmp/parts_trusted.py:Net", ("parts_trusted",), *words)
    with pytest.raises(UnsupportedEnvironment, match="there is no file"):
        check_trusted("parts_trusted:Net", ("gone/parts_trusted.py",), *words)
    check_trusted("parts_trusted:Net", ("parts_trusted",), *words)
    check_trusted("parts_trusted:Net", ("./parts_trusted.py",), *words)
    check_trusted("mlp", (), *words)


def test_what_a_module_only_imports_is_not_its_own(folder: Path) -> None:
    # given a module that a user trusts, and what it imports from elsewhere
    (folder / "parts_owner.py").write_text("class Like: pass\n")
    (folder / "parts_else.py").write_text("class Net: pass\ndef make(): pass\n")
    (folder / "parts_own.py").write_text(
        "import functools\nimport parts_else\nfrom parts_else import Net, make\n"
        "from parts_owner import Like\n"
        "class Own:\n    Inner = Net\n    elsewhere = parts_else\npart = functools.partial(Own)\n"
    )

    # then
    for name, why in {
        "parts_else.Net": "into the module 'parts_else'; name the network by the module that def",
        "Own.elsewhere.make": "into the module 'parts_else'",
        "functools.partial": "into the module 'functools'",
        "Net": "not defined in 'parts_own', .* as in parts_else:Net$",
        "make": "as in parts_else:make$",
        "Like": "not defined in 'parts_own', .* as in parts_owner:Like$",
        "Own.Inner": "as in parts_else:Net$",
        "Own.__class__": "not defined in 'parts_own'",
        "part": "has no class or function 'part'",
    }.items():
        with pytest.raises(ConfigError, match=why):
            imported(f"parts_own:{name}", "network")


def test_a_package_offers_what_its_modules_define(folder: Path) -> None:
    # given
    (folder / "parts_package").mkdir()
    (folder / "parts_package" / "net.py").write_text("class Net: pass\n")
    (folder / "parts_package" / "__init__.py").write_text("from .net import Net\n")

    # then
    assert imported("parts_package:Net", "network").__name__ == "Net"
    assert imported("parts_package.net:Net", "network").__name__ == "Net"
    assert imported("./parts_package:Net", "network").__name__ == "Net"
    with pytest.raises(ConfigError, match=r"into the module 'parts_package.net'"):
        imported("parts_package:net.Net", "network")


def test_a_ctrl_c_while_a_part_is_imported_stays_one(folder: Path) -> None:
    (folder / "parts_slow.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        imported("parts_slow:Net", "network")
