"""Nothing that comes from Redis or from a file can be executed: imports and calls of every file."""

import ast
from pathlib import Path

import pytest
from source import by_file, imported_by

# Modules that run what they read, or exist to be run.
EXECUTES = {
    *("pickle", "cPickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "jsonpickle"),
    *(
        "marshal",
        "shelve",
        "copyreg",
        "msgpack_numpy",
        "runpy",
        "code",
        "codeop",
    ),
    *("torch.hub", "torch.package", "torch.multiprocessing", "numpy.lib.format", "xmlrpc"),
}
EXECUTING_CALLS = {
    *("torch.load", "torch.jit.load", "torch.export.load", "torch.serialization.load"),
    *("np.load", "numpy.load", "numpy.core.records.fromfile", "pandas.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("logging.config.listen", "logging.config.fileConfig", "logging.config.dictConfig"),
}
# What these arguments may be; any other value opens a way in.
HARMLESS = {"shell": False, "allow_pickle": False, "weights_only": True}


def executing(tree: ast.AST) -> set[str]:
    """What in the tree could run code that somebody else wrote."""
    imported = set(imported_by(tree))
    found = {name for name in imported if any(_is_in(name, banned) for banned in EXECUTES)}
    found |= imported & EXECUTING_CALLS
    meanings = _meanings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            first, dot, rest = name.partition(".")
            names = {name, meanings.get(first, first) + dot + rest}
            found |= names & EXECUTING_CALLS
            found |= {n for n in names for banned in EXECUTES if "." in n and _is_in(n, banned)}
        elif isinstance(node, ast.keyword) and node.arg in HARMLESS:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if value is not HARMLESS[node.arg]:
                found.add(f"{node.arg}={ast.unparse(node.value)}")
    return found


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def _meanings(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports stand for: np is numpy, load may be torch.load."""
    meanings = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            meanings |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            meanings |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return meanings


@by_file("common", "workers", "scripts")
def test_nothing_that_is_read_can_be_executed(path: Path) -> None:
    assert executing(ast.parse(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from cloudpickle import loads", "cloudpickle.loads"),
        ("import marshal as m", "marshal"),
        ("x = torch.load(path)", "torch.load"),
        ("load = numpy.load", "numpy.load"),
        ("np.load(path, allow_pickle=False)", "np.load"),
        ("from torch import load", "torch.load"),
        ("yaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
        ("import torch as t\nt.load(path)", "torch.load"),
        ("from numpy import load as read\nread(path)", "numpy.load"),
        ("import torch\ntorch.jit.load(path)", "torch.jit.load"),
        ("import torch\ntorch.hub.load(path)", "torch.hub.load"),
        ("from torch import package", "torch.package"),
        ("import msgpack_numpy", "msgpack_numpy"),
        ("yaml.full_load(text)", "yaml.full_load"),
        ("yaml.safe_load_all\nyaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("import builtins\nbuiltins.eval(text)", "builtins.eval"),
        ("compile(text, 'x', 'exec')", "compile"),
        ("__import__(name)", "__import__"),
        ("os.system(line)", "os.system"),
        ("from os import popen", "os.popen"),
        ("subprocess.run(line, shell=True)", "shell=True"),
        ("subprocess.run(line, shell=maybe)", "shell=maybe"),
        ("read(file, allow_pickle=True)", "allow_pickle=True"),
        ("read(file, weights_only=False)", "weights_only=False"),
    ],
)
def test_what_could_execute_is_found(code: str, found: str) -> None:
    assert found in executing(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "json.load(file)",
        "safetensors.numpy.load(data)",
        "policy.load(1, w)",
        "re.compile(text)",
        "torch.compile(model)",
        "yaml.safe_load(text)",
        "subprocess.run([name], shell=False)",
        "code = 5",
        "error.code",
    ],
)
def test_what_only_sounds_alike_is_not_found(code: str) -> None:
    assert executing(ast.parse(code)) == set()
