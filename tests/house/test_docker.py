"""The container files say what they should, and the image's build steps work.

No container engine is needed: the files are parsed, the server's options are given to a real
server, and the build stage's own RUN lines are run in a temporary directory. What only an engine
can tell (base images, users, volumes, networks) is not tested here.
"""

import configparser
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest
import yaml
from click.core import ParameterSource

from impala_redis.common.local.server_program import find_server
from impala_redis.common.presets.table import PRESETS
from impala_redis.common.server.backoff import keep_trying
from impala_redis.common.server.connection import connect
from impala_redis.common.server.suitability import ServerLimits, check_server
from impala_redis.common.transport.keys import Keys
from support import BIN, ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_TEXT = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
README = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("learner", "actor")


# Reading a Dockerfile: as much of its grammar as ours has.


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined: RUN and what it runs."""

    word: str
    text: str

    @property
    def exec_form(self) -> list[str]:
        """The words of CMD, ENTRYPOINT or VOLUME in exec form. Raises ValueError in shell form."""
        words: list[str] = json.loads(self.text)
        return words

    @property
    def pairs(self) -> dict[str, str]:
        """The names and values of ENV, LABEL or ARG."""
        found = re.findall(r'([\w.]+)=("[^"]*"|\S*)', self.text)
        return {name: value.strip('"') for name, value in found}

    @property
    def copied(self) -> tuple[str | None, list[str], str]:
        """Stage, sources and destination of COPY."""
        words = self.text.split()
        origin = next((w.partition("=")[2] for w in words if w.startswith("--from=")), None)
        *sources, destination = (word for word in words if not word.startswith("--"))
        return origin, sources, destination


@dataclass(frozen=True)
class Stage:
    """FROM, its arguments filled in, and what follows it."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """The stage's instructions of one kind, in order."""
        return [i for i in self.instructions if i.word == word]


def stages_of(text: str) -> list[Stage]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for statement in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not statement.strip():
            continue
        word, _, rest = statement.strip().partition(" ")
        instruction = Instruction(word.upper(), " ".join(rest.split()))
        if instruction.word == "FROM":
            filled = instruction.text
            for argument, value in arguments.items():
                filled = filled.replace(f"${{{argument}}}", value)
            base, _, name = re.sub(r" as ", " AS ", filled).partition(" AS ")
            stages.append(Stage(base, name or None))
        elif not stages:
            arguments |= instruction.pairs
        else:
            stages[-1].instructions.append(instruction)
    return stages


STAGES = stages_of(DOCKERFILE)
FINAL = STAGES[-1]
COPIED = [
    source
    for stage in STAGES
    for copy in stage.all("COPY")
    for source in copy.copied[1]
    if copy.copied[0] is None
]


# Reading .dockerignore: its patterns hold from the root on, and the last that matches decides.


def patterns_in(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def is_excluded(path: str, patterns: list[str]) -> bool:
    """Whether the file or folder stays out of the build context, by itself or by a parent."""
    itself = PurePosixPath(path)
    candidates = [str(itself), *(str(parent) for parent in itself.parents if str(parent) != ".")]
    excluded = False
    for pattern in patterns:
        expression = _expression(pattern.removeprefix("!").strip("/"))
        if any(expression.fullmatch(candidate) for candidate in candidates):
            excluded = not pattern.startswith("!")
    return excluded


def _expression(pattern: str) -> re.Pattern[str]:
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(translated.get(part, re.escape(part)) for part in parts))


IGNORED = patterns_in((ROOT / ".dockerignore").read_text(encoding="utf-8"))


# Our programs, as setup.cfg installs them.


def console_scripts() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): target.strip() for name, target in (line.split("=") for line in lines)}


def program(name: str) -> click.Command:
    module, _, attribute = console_scripts()[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def variables_read_by(command: click.Command) -> set[str]:
    context = click.Context(command, **command.context_settings)
    names: set[str] = set()
    for parameter in command.get_params(context):
        if isinstance(parameter.envvar, str):
            names.add(parameter.envvar)
        elif parameter.envvar:
            names.update(parameter.envvar)
        elif context.auto_envvar_prefix and parameter.name:
            names.add(f"{context.auto_envvar_prefix}_{parameter.name.upper()}")
    return names


def interpolated(text: str, shell: Mapping[str, str]) -> str:
    """`text` with each ${NAME:-default} replaced as Compose does, the innermost first."""
    found = re.compile(r"\$\{(\w+):-([^${}]*)\}")
    while found.search(text):
        text = found.sub(lambda match: shell.get(match[1]) or match[2], text)
    assert "$" not in text
    return text


def environment_of(service: str, shell: Mapping[str, str] | None = None) -> dict[str, str]:
    environment: dict[str, Any] = SERVICES[service].get("environment", {})
    return {name: interpolated(value, shell or {}) for name, value in environment.items()}


# The image.


def test_a_dockerfile_is_read_with_continued_lines_comments_and_stages() -> None:
    # given
    text = (
        "# x\nARG A=a:1\nFROM ${A} AS one\nRUN b \\\n    # in between\n  && c\n\n"
        'FROM d:2\nCMD ["e"]\n'
    )

    # when
    first, last = stages_of(text)

    # then
    assert (first.base, first.name, last.base, last.name) == ("a:1", "one", "d:2", None)
    assert first.instructions == [Instruction("RUN", "b && c")]
    assert last.instructions[0].exec_form == ["e"]


def test_the_image_is_built_in_stages_and_its_last_takes_only_the_environment() -> None:
    # given
    copies = FINAL.all("COPY")

    # then
    assert len(STAGES) == 2
    assert [copy.copied for copy in copies] == [(STAGES[0].name, ["/opt/venv"], "/opt/venv")]


def test_every_stage_has_the_same_base_with_a_fixed_tag() -> None:
    # given
    bases = {stage.base for stage in STAGES}

    # then the environment's links to its interpreter hold in the last stage, too
    assert bases == {"python:3.11-slim"}


def test_the_programs_do_not_run_as_root() -> None:
    # given
    users = [instruction.text for instruction in FINAL.all("USER")]
    made = next(i.text for i in FINAL.all("RUN") if "useradd" in i.text)

    # then
    assert len(users) == 1
    user, group = users[0].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user} --user-group" in made
    assert FINAL.instructions.index(FINAL.all("USER")[0]) < FINAL.instructions.index(
        FINAL.all("CMD")[0]
    )


def test_the_programs_work_in_a_volume_that_their_user_owns() -> None:
    # given
    made = next(i.text for i in FINAL.all("RUN") if "useradd" in i.text)
    user = made.split("useradd")[1].split("&&")[0].split()[-1]

    # then
    assert [i.text for i in FINAL.all("WORKDIR")] == ["/runs"]
    assert [i.exec_form for i in FINAL.all("VOLUME")] == [["/runs"]]
    assert f"install --directory --owner={user} --group={user} /runs" in made


def test_the_default_command_is_in_exec_form_and_a_program_with_options_it_has() -> None:
    # given no shell between the engine's signals and the program
    (instruction,) = FINAL.all("CMD")

    # when
    name, *arguments = instruction.exec_form
    context = program(name).make_context(name, arguments)

    # then
    assert context.params["preset"] in PRESETS
    assert context.params["run_dir"].is_relative_to(FINAL.all("VOLUME")[0].exec_form[0])


def test_output_is_not_held_back() -> None:
    # given
    environment = {k: v for i in FINAL.all("ENV") for k, v in i.pairs.items()}

    # then
    assert environment["PYTHONUNBUFFERED"] == "1"


def test_the_image_has_labels_that_agree_with_setup_cfg() -> None:
    # given
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    labels = {k: v for i in FINAL.all("LABEL") for k, v in i.pairs.items()}

    # then
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == parser["metadata"]["name"]
    assert labels[f"{prefix}.licenses"] == parser["metadata"]["license"]
    assert labels[f"{prefix}.description"]


def test_the_image_needs_no_package_of_the_operating_system() -> None:
    # given
    runs = [i.text for stage in STAGES for i in stage.all("RUN")]

    # then
    assert runs
    assert not [run for run in runs if re.search(r"\b(apt|apt-get|dpkg|apk|curl|wget)\b", run)]


def test_no_secret_is_baked_into_an_image_or_written_into_the_compose_file() -> None:
    # given
    names = [
        name
        for stage in STAGES
        for instruction in (*stage.all("ARG"), *stage.all("ENV"))
        for name in instruction.pairs
    ]
    names += [name for service in OURS for name in environment_of(service)]

    # then
    assert names
    assert not [n for n in names if re.search("PASS|SECRET|TOKEN|CREDENTIAL|_KEY", n.upper())]
    assert not re.search(r"://[^\s/]*:[^\s/]*@", DOCKERFILE + COMPOSE_TEXT)


def test_no_index_is_named_and_only_the_install_of_torch_takes_one() -> None:
    # given
    build = STAGES[0]
    default = build.all("ARG")[0].pairs["TORCH_INDEX_URL"]

    # when
    addresses = re.findall(r"https?://\S+", DOCKERFILE + COMPOSE_TEXT + README)
    users = [i.text for i in build.all("RUN") if "TORCH_INDEX_URL" in i.text]

    # then
    assert default == ""
    assert addresses == []
    assert len(users) == 1
    assert '--index-url "$TORCH_INDEX_URL" --no-deps --constraint constraints.txt torch' in users[0]


def test_every_install_takes_hashes_or_fetches_nothing_but_for_the_torch_of_a_named_index() -> None:
    # given
    runs = " ; ".join(i.text for i in STAGES[0].all("RUN"))

    # when
    installs = [part.split(";")[0].split("&&")[0] for part in runs.split("pip install ")[1:]]

    # then
    of_torch = [one for one in installs if "--constraint constraints.txt torch" in one]
    others = [one for one in installs if one not in of_torch]
    assert ["--index-url" in one for one in of_torch] == [True, False]
    assert len(others) == 3
    assert all("--require-hashes" in one or "--no-index" in one for one in others)
    assert all("--no-build-isolation" in one for one in others if "--no-index" in one)


def test_torch_is_pinned_without_a_build_tag() -> None:
    # given
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()

    # then a tag such as +cpu would forbid the build for a GPU
    assert [pin for pin in pins if re.fullmatch(r"torch==[0-9.]+", pin)]


# The build context.


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("*", "a", True),
        ("*", "a/b", True),
        ("a", "a/b/c", True),
        ("b", "a/b", False),
        ("**/b", "a/b", True),
        ("**/b", "b", True),
        ("**/.*_cache", "a/.x_cache/y", True),
        ("a?", "ab", True),
        ("a/", "a/b", True),
        ("a.c", "abc", False),
    ],
)
def test_a_pattern_of_dockerignore_is_read_from_the_root_on(
    pattern: str, path: str, excluded: bool
) -> None:
    assert is_excluded(path, [pattern]) is excluded


def test_the_last_pattern_of_dockerignore_that_matches_decides() -> None:
    # given
    patterns = ["*", "!a", "**/b"]

    # then
    assert not is_excluded("a/c", patterns)
    assert is_excluded("a/b/c", patterns)
    assert is_excluded("c", patterns)


@pytest.mark.parametrize("source", COPIED)
def test_what_the_image_copies_is_in_the_checkout_and_in_the_build_context(source: str) -> None:
    assert (ROOT / source).exists()
    assert not is_excluded(source, IGNORED)


def test_the_build_context_holds_what_the_image_copies_and_nothing_else() -> None:
    # given
    entries = {entry.name for entry in ROOT.iterdir()}
    entries |= {f"scripts/{entry.name}" for entry in (ROOT / "scripts").iterdir()}

    # when
    sent = {entry for entry in entries if not is_excluded(entry, IGNORED)}

    # then
    assert sent == set(COPIED)


def test_what_git_ignores_stays_out_of_the_build_context_at_any_depth() -> None:
    # given
    patterns = patterns_in((ROOT / ".gitignore").read_text(encoding="utf-8"))
    names = [p.strip("/").replace("*", "x") for p in patterns if not p.startswith("!")]

    # then
    assert names
    for name in names:
        assert is_excluded(name, IGNORED)
        assert is_excluded(f"common/{name}", IGNORED)


def test_the_build_context_has_what_setup_cfg_reads() -> None:
    # given
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    metadata = parser["metadata"]

    # when
    described = metadata["long_description"].removeprefix("file:").strip()
    read = {described, *metadata["license_files"].split()}
    packages = {parser["options.packages.find"]["where"]} | {"common", "workers"}

    # then
    assert read | packages | {"setup.cfg", "pyproject.toml"} <= set(COPIED)


# compose.yaml.


def test_the_services_are_a_server_a_learner_and_actors_without_a_version_key() -> None:
    assert set(SERVICES) == {"redis", "learner", "actor"}
    assert "version" not in COMPOSE


def test_no_service_can_be_reached_from_the_network() -> None:
    for service in SERVICES.values():
        # given
        ports = [p if isinstance(p, str) else p["host_ip"] + ":" for p in service.get("ports", [])]

        # then
        assert all(port.startswith("127.0.0.1:") for port in ports)
        assert service.get("network_mode") != "host"


def test_actors_can_be_scaled() -> None:
    # given what two containers of one service cannot share
    fixed = {"container_name", "hostname", "ports"}

    # then
    assert not fixed & set(SERVICES["actor"])
    assert "IMPALA_ACTOR_ID" not in environment_of("actor")


def test_every_image_has_a_tag_that_is_not_latest() -> None:
    for service in SERVICES.values():
        name, _, tag = interpolated(service["image"], {}).rpartition(":")
        assert name
        assert tag not in ("", "latest")


def test_the_digests_that_the_readme_has_written_into_env_are_what_is_taken(tmp_path: Path) -> None:
    # given a registry that answers as the real one does, each image with a digest of its own
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\necho "Name: $4"\necho "Digest: sha256:of-$4"\necho "Digest: of a platform"\n'
    )
    docker.chmod(0o755)
    snippet = next(b for b in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "digest=" in b)

    # when
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-euc", snippet], cwd=tmp_path, env=environment, check=True)
    lines = (tmp_path / ".env").read_text().split()
    shell = dict(line.split("=", 1) for line in lines)

    # then
    assert interpolated(SERVICES["redis"]["image"], shell) == (
        "valkey/valkey:9.1@sha256:of-valkey/valkey:9.1"
    )
    arguments = SERVICES["learner"]["build"]["args"]
    assert interpolated(arguments["PYTHON_IMAGE"], shell) == (
        "python:3.11-slim@sha256:of-python:3.11-slim"
    )
    # and without them compose.yaml builds on what the Dockerfile names
    assert interpolated(arguments["PYTHON_IMAGE"], {}) == STAGES[0].base


def test_a_registry_that_does_not_answer_leaves_no_image_without_a_digest(tmp_path: Path) -> None:
    # given
    (tmp_path / "docker").symlink_to("/bin/false")
    snippet = next(b for b in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "digest=" in b)

    # when
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", snippet], cwd=tmp_path, env=environment)

    # then
    assert done.returncode != 0
    assert (tmp_path / ".env").read_text() == ""


def test_no_service_can_write_its_own_disk_or_has_a_right_of_root() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
        # and what it may write in memory is bounded
        assert all("size=" in mount for mount in service["tmpfs"])
        user = service.get("user") or FINAL.all("USER")[0].text
        assert int(user.split(":")[0]) > 0, name


def may_mount() -> bool:
    """Whether this process can make a mount namespace, and a read-only disk in it."""
    if sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("setpriv")):
        return False
    command = ["unshare", "--mount", "mount", "-o", "remount,bind,ro", "/"]
    return subprocess.run(command, capture_output=True).returncode == 0


# As a container of compose.yaml: nothing but /media can be written, and no capability is left.
READ_ONLY = """
mount -o remount,bind,ro /
mount -t tmpfs -o nosuid,nodev,size=64m,mode=1777 tmpfs /media
mkdir /media/tmp
cd /media
export TMPDIR=/media/tmp HOME=/
if touch "$0" 2>/dev/null; then echo "the disk can be written" >&2; exit 1; fi
exec setpriv --bounding-set -all --inh-caps -all --no-new-privs -- "$@"
"""


def on_a_read_only_disk(probe: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `command` so; `probe` is a file that must turn out not to be writable."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-euc", READ_ONLY, probe, *command],
        capture_output=True,
        text=True,
        timeout=100,
    )


needs_mounts = pytest.mark.skipif(not may_mount(), reason="needs root, unshare and setpriv")


@needs_mounts
@pytest.mark.processes
def test_learner_actors_and_a_report_need_no_disk_but_the_run_and_tmp(tmp_path: Path) -> None:
    # given
    train = [BIN / "impala-train", "--preset", "cartpole", "--run-dir", "/media/run", "--report"]

    # when
    done = on_a_read_only_disk(
        tmp_path / "x", *train, "--total-frames", "4000", "--stop-at-return", "none"
    )

    # then
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert "Read-only" not in done.stdout + done.stderr
    assert not (tmp_path / "x").exists()


@needs_mounts
@pytest.mark.processes
def test_the_server_needs_no_disk_at_all(tmp_path: Path) -> None:
    # given the compose file's words
    file, *options = SERVICES["redis"]["command"]
    server = [find_server(), ROOT / "docker" / Path(file).name, *options, "--port", "0"]
    client = "import redis; c = redis.Redis(unix_socket_path='s'); c.set('a', 1)"
    script = (
        '"$@" --unixsocket s & until [ -S s ] || ! kill -0 $!; do sleep 0.05; done;'
        '"$0" -c "$CLIENT" || exit 1; kill $!; wait $!; ls'
    )

    # when
    command = ["env", f"CLIENT={client}", "sh", "-c", script, sys.executable, *server]
    done = on_a_read_only_disk(tmp_path / "x", *command)

    # then
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == "tmp"


def test_one_service_builds_the_image_and_the_others_take_it() -> None:
    # given two builds of one tag at the same time fail on a fresh machine
    builders = [name for name, service in SERVICES.items() if "build" in service]

    # then
    assert builders == ["learner"]
    assert len({SERVICES[name]["image"] for name in OURS}) == 1
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


def test_the_image_is_built_from_the_root_with_our_dockerfile() -> None:
    # given
    build = SERVICES["learner"]["build"]
    context = (ROOT / "docker" / build["context"]).resolve()

    # then
    assert context == ROOT.resolve()
    assert (context / build["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")


@pytest.mark.parametrize("service", OURS)
def test_a_program_starts_when_the_server_is_healthy(service: str) -> None:
    assert SERVICES[service]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert SERVICES["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "-e", "ping"]


def test_a_program_is_not_process_1_to_which_early_signals_are_not_delivered() -> None:
    (start,) = FINAL.all("ENTRYPOINT")
    assert start.exec_form == ["dumb-init", "--single-child", "--"]
    assert any(i.text.startswith("for name in core image ") for i in STAGES[0].all("RUN"))
    assert "dumb-init==" in (ROOT / "scripts" / "hashes" / "image.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("service", OURS)
def test_a_program_is_started_again_after_a_failure_and_has_time_to_stop(service: str) -> None:
    assert SERVICES[service]["restart"] == "on-failure"
    assert SERVICES[service]["stop_grace_period"] == "30s"


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_an_installed_program_configured_by_the_environment_alone(
    service: str,
) -> None:
    # given
    command = SERVICES[service]["command"]

    # then
    assert command == [f"impala-{service}"]
    assert command[0] in console_scripts()
    assert "entrypoint" not in SERVICES[service]
    assert all(name.startswith("IMPALA_") for name in environment_of(service))


@pytest.mark.parametrize("service", OURS)
def test_every_variable_of_a_service_is_one_that_its_program_reads(service: str) -> None:
    # given
    readable = variables_read_by(program(f"impala-{service}"))

    # then
    assert set(environment_of(service)) <= readable


@pytest.mark.parametrize("service", OURS)
def test_a_program_takes_every_variable_of_its_service(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    _set_environment(service, monkeypatch)

    # when
    context = program(f"impala-{service}").make_context(f"impala-{service}", [])

    # then
    sources = [context.get_parameter_source(name) for name in context.params]
    assert sources.count(ParameterSource.ENVIRONMENT) == len(environment_of(service))
    assert context.params["redis_url"] == "redis://redis:6379/0"
    assert context.params["run"] == "cartpole"


def test_the_learner_resumes_the_run_that_its_volume_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    _set_environment("learner", monkeypatch)
    (mount,) = SERVICES["learner"]["volumes"]
    volume, target = mount.split(":")

    # when
    context = program("impala-learner").make_context("impala-learner", [])

    # then
    assert context.params["resume"] is True
    assert context.params["preset"] == "cartpole"
    assert context.params["run_dir"] == Path(target) / "cartpole"
    assert volume in COMPOSE["volumes"]
    assert target == FINAL.all("VOLUME")[0].exec_form[0]


def _set_environment(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("IMPALA_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(service).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("shell", "preset", "run"),
    [
        ({}, "cartpole", "cartpole"),
        ({"IMPALA_PRESET": "acrobot"}, "acrobot", "acrobot"),
        ({"IMPALA_RUN": "second"}, "cartpole", "second"),
        ({"IMPALA_PRESET": "acrobot", "IMPALA_RUN": "second"}, "acrobot", "second"),
    ],
)
def test_preset_and_run_chosen_in_the_shell_reach_learner_and_actors(
    shell: dict[str, str], preset: str, run: str
) -> None:
    # when
    learner, actor = environment_of("learner", shell), environment_of("actor", shell)

    # then
    assert learner["IMPALA_PRESET"] == preset
    assert learner["IMPALA_RUN"] == actor["IMPALA_RUN"] == run
    assert learner["IMPALA_RUN_DIR"] == f"/runs/{run}"


def server_options() -> dict[str, str]:
    """What the compose file's server is given beyond its file."""
    _, *words = SERVICES["redis"]["command"]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_server_is_given_our_file_for_its_private_network() -> None:
    # given a command that the entry points of Valkey's and of Redis's image both take
    source, target, mode = SERVICES["redis"]["volumes"][0].split(":")

    # then
    assert SERVICES["redis"]["command"][0] == target
    assert target.endswith(".conf")
    assert (ROOT / "docker" / source).is_file()
    assert mode == "ro"
    assert server_options() == {"--bind": "*", "--protected-mode": "no", "--maxmemory": "512mb"}
    assert len(SERVICES["redis"]["volumes"]) == 1


@pytest.mark.processes
def test_a_server_so_started_is_one_that_the_learner_accepts_and_keeps_nothing(
    tmp_path: Path,
) -> None:
    # given a real server with the compose file's words, on a socket of its own
    socket = tmp_path / "s"
    file, *options = SERVICES["redis"]["command"]
    here = ROOT / "docker" / Path(file).name
    command = [find_server(), here, *options, "--port", "0", "--unixsocket", socket]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            # when
            limits = _limits(f"unix://{socket}")
        finally:
            server.terminate()
            server.wait(20)

    # then
    assert limits.maxmemory_bytes == 512 * 1024**2
    assert [path for path in tmp_path.iterdir() if path != socket] == []


def _limits(url: str) -> ServerLimits:
    client = connect(url, "test")
    try:
        return keep_trying(
            lambda: check_server(client, url),
            give_up_after_s=20,
            stopped=lambda: False,
            waiting=lambda _: None,
        )
    finally:
        client.close()


# README.md.


def test_the_readme_shows_the_keys_and_images_as_they_are() -> None:
    # given
    keys = re.findall(r"'(impala:[^']*)'", README)
    names = Keys("cartpole")

    # then
    assert keys == [names.trajectories, names.stats, names.weights]
    assert interpolated(SERVICES["redis"]["image"], {}) in README
    assert SERVICES["learner"]["image"] in README


def test_the_readme_starts_only_programs_and_services_that_exist() -> None:
    # given
    programs = set(re.findall(r"\bimpala-(?:learner|actor|train|eval|status|report)\b", README))
    services = set(re.findall(r"docker compose (?:exec|logs --follow|run --rm) (\w+)", README))

    # then
    assert programs
    assert programs <= set(console_scripts())
    assert services == {"redis", "learner"}


# The build itself.


class Build:
    """Runs the first stage's instructions on this machine, its absolute paths moved to `root`.

    Truly run, as they stand in the Dockerfile: every RUN, COPY (through .dockerignore), WORKDIR
    and ENV, its arguments empty as a user can build, because the wheel index cannot be
    reached from everywhere. Not run: the last stage's useradd, which needs root.

    Shared: once there is a virtual environment, a .pth file shows it the packages of the
    environment that runs this test. pip then finds torch and the other dependencies installed,
    instead of fetching a gigabyte; the libraries of CUDA, which this environment need not have, are
    left out of the hashes. Our own package is built from the copied files, and installed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stage = STAGES[0]
        inside = [i.text for i in self.stage.all("WORKDIR")]
        inside += [path for copy in FINAL.all("COPY") for path in copy.copied[1]]
        self._moved = re.compile(rf"(?<![\w/.])({'|'.join(map(re.escape, inside))})(?![\w.-])")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("IMPALA_", "PYTHON", "VIRTUAL_ENV", "COV"))
        } | {"PATH": f"{self._base_python()}:/usr/bin:/bin"}
        self.directory = root

    def _base_python(self) -> Path:
        """A folder with nothing but `python`, as the base image has it."""
        folder = self.root / "usr-local-bin"
        folder.mkdir()
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (folder / "python").symlink_to(Path(sys.base_prefix, "bin", version))
        return folder

    def moved(self, text: str) -> str:
        """`text` with the image's paths in the temporary directory."""
        return self._moved.sub(lambda match: f"{self.root}{match[1]}", text)

    def run(self) -> None:
        for instruction in self.stage.instructions:
            getattr(self, f"_{instruction.word.lower()}")(instruction)

    def apply_env(self, instruction: Instruction) -> None:
        for name, value in instruction.pairs.items():
            expanded = re.sub(r"\$(\w+)", lambda m: self.environment.get(m[1], ""), value)
            self.environment[name] = self.moved(expanded)

    _env = apply_env

    def _arg(self, instruction: Instruction) -> None:
        (name,) = instruction.pairs
        assert name in ("TORCH_INDEX_URL", "EXTRAS")
        self.environment[name] = ""

    def _workdir(self, instruction: Instruction) -> None:
        self.directory = Path(self.moved(instruction.text))
        self.directory.mkdir(parents=True)

    def _copy(self, instruction: Instruction) -> None:
        _, sources, destination = instruction.copied
        for source in sources:
            if (ROOT / source).is_dir():
                target = self.directory / destination
                shutil.copytree(ROOT / source, target, symlinks=True, ignore=self._left_out)
                self._leave_out_libraries_of_cuda(target)
            else:
                shutil.copy(ROOT / source, self.directory / destination)

    def _leave_out_libraries_of_cuda(self, folder: Path) -> None:
        for path in folder.glob("torch.txt"):
            entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
            (torch,) = [entry for entry in entries if entry.startswith("torch==")]
            path.write_text(torch, encoding="utf-8")

    def _left_out(self, folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(ROOT)
        return [name for name in names if is_excluded((inside / name).as_posix(), IGNORED)]

    def _run(self, instruction: Instruction) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self.moved(instruction.text)],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, f"{instruction.text}\n{done.stdout}"
        self._share_packages()

    def _share_packages(self) -> None:
        (site,) = self.root.glob("opt/venv/lib/python*/site-packages")
        ours = Path(pytest.__file__).parents[1]
        (site / "shared-for-the-test.pth").write_text(f"{ours}\n", encoding="utf-8")


@pytest.mark.processes
@pytest.mark.full  # a minute
@pytest.mark.timeout(300)
def test_the_build_steps_of_the_image_make_an_environment_with_working_programs(
    tmp_path: Path,
) -> None:
    # given what the Dockerfile copies, and nothing else of the checkout
    build = Build(tmp_path)

    # when its build steps are run, and the last stage's environment variables are set
    build.run()
    for instruction in FINAL.all("ENV"):
        build.apply_env(instruction)

    # then the package comes from what was built, data files included
    assert [source for source in COPIED if not (build.directory / source).exists()] == []
    runs = tmp_path / "runs"
    runs.mkdir()
    where = _output(
        build, runs, "python", "-c", "import impala_redis; print(impala_redis.__file__)"
    )
    package = Path(where.strip()).parent
    assert package.is_relative_to(tmp_path / "opt" / "venv")
    assert (package / "common/transport/functions.lua").read_bytes() == (
        ROOT / "common/transport/functions.lua"
    ).read_bytes()

    # under one name of ours
    assert {"common", "workers", "src"}.isdisjoint(path.name for path in package.parent.iterdir())

    # and the programs start
    for name in ("impala-learner", "impala-actor"):
        assert "IMPALA_REDIS_URL" in _output(build, runs, name, "--help")


def _output(build: Build, directory: Path, name: str, *arguments: str) -> str:
    found = shutil.which(name, path=build.environment["PATH"])
    assert found is not None
    assert Path(found).is_relative_to(build.root)
    done = subprocess.run(
        [found, *arguments],
        cwd=directory,
        env=build.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
