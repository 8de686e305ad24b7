"""impala-eval --video: what is recorded is what is reported, and old environments make no noise."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_redis.common.envs import video
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError, EnvironmentFailed, UnsupportedEnvironment
from support import Programs

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def frames_of(path: Path) -> int:
    """How many pictures a video has."""
    return int(imageio_ffmpeg.count_frames_and_secs(str(path))[0])


def first_picture_of(path: Path) -> np.ndarray[Any, Any]:
    """Its first one, [height, width, 3]."""
    pictures = imageio_ffmpeg.read_frames(str(path))
    width, height = next(pictures)["size"]
    picture = np.frombuffer(next(pictures), np.uint8).reshape(height, width, 3)
    pictures.close()
    return picture


class Drawn(gymnasium.Env[Any, Any]):
    """Five steps; draws them, or nothing."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, blank: bool = False) -> None:
        self.render_mode, self.blank = render_mode, blank

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return 0, 1.0, self.steps == 5, False, {}

    def render(self) -> Any:
        return None if self.blank else np.full((16, 16, 3), 40 * self.steps, np.uint8)


@pytest.fixture
def drawn() -> Iterator[str]:
    """The id of an environment that draws; its `blank` form only says that it does."""
    names = ["DrawnForVideo-v0", "DrawnForVideoBlank-v0"]
    for name in names:
        gymnasium.register(name, Drawn, kwargs={"blank": "Blank" in name})
    yield names[0]
    for name in names:
        del gymnasium.registry[name]


def record(env_id: str, directory: Path, name: str) -> Path:
    """Plays one episode of five steps, and keeps its video."""
    with video.recording(directory) as recording:
        environment = VectorEnvironment(env_id, 1, recording.wrap)
        environment.reset(seed=0)
        for _ in range(5):
            environment.step(np.zeros(1, np.int64))
        path = recording.keep(name)
        environment.close()
    return path


def test_a_video_has_a_picture_of_each_step_and_of_the_start(drawn: str, tmp_path: Path) -> None:
    path = record(drawn, tmp_path, "an-episode")
    assert path == tmp_path / "an-episode.mp4"
    assert frames_of(path) == 6
    assert list(tmp_path.iterdir()) == [path]  # and nothing else is left


def test_a_video_that_would_fill_the_memory_is_cut(
    drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "PICTURES_BYTES", 3 * 16 * 16 * 3)
    assert frames_of(record(drawn, tmp_path, "a-long-one")) == 4


def test_a_video_that_was_not_kept_leaves_nothing(drawn: str, tmp_path: Path) -> None:
    with video.recording(tmp_path) as recording:
        environment = VectorEnvironment(drawn, 1, recording.wrap)
        environment.reset(seed=0)
        environment.close()
    assert not list(tmp_path.iterdir())


def test_an_environment_that_gives_no_picture_is_named(drawn: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=r"Blank-v0 failed in reset: .*it drew no picture"):
        record(drawn.replace("-v0", "Blank-v0"), tmp_path, "blank")


def test_an_environment_that_fails_when_it_is_to_draw_is_named_with_the_cause(
    drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def init(self: Drawn, render_mode: str | None = None, **options: Any) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(Drawn, "__init__", init)

    # when / then
    place = r"\(.*test_video.py, line \d+, in init\)"
    sentence = rf"{drawn} cannot be recorded: RuntimeError: no display {place}$"
    with pytest.raises(UnsupportedEnvironment, match=sentence):
        record(drawn, tmp_path, "never")


def test_a_recorded_episode_takes_one_environment(
    drawn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    init = Drawn.__init__

    def counted(self: Drawn, **options: Any) -> None:
        made.append(options["render_mode"])
        init(self, **options)

    monkeypatch.setattr(Drawn, "__init__", counted)
    record(drawn, tmp_path, "an-episode")
    assert made == ["rgb_array"]


def test_a_video_that_cannot_be_written_is_reported(drawn: str, tmp_path: Path) -> None:
    # given a directory that goes away while an episode is played
    directory = tmp_path / "gone"
    directory.mkdir()
    with video.recording(directory) as recording:
        environment = VectorEnvironment(drawn, 1, recording.wrap)
        environment.reset(seed=0)
        shutil.rmtree(directory)

        # then that is one sentence
        with pytest.raises(ConfigError, match=r"cannot write the video .*name\.mp4: ") as refused:
            recording.keep("name")
        assert len(str(refused.value).splitlines()) == 1
        environment.close()


def test_missing_packages_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'impala-redis\[video\]'.*setup\.sh video"):
        video.prepare_directory(tmp_path)


@pytest.mark.processes
def test_the_recorded_episodes_are_the_reported_ones(programs: Programs) -> None:
    # given a short run of an environment that Gymnasium calls out of date
    code, output = programs.run(
        *("impala-train", "--env", "CartPole-v0", "--total-frames", "3000", "--run-dir", "run")
    )
    assert code == 0, output

    # then no program has said so
    logs = "".join(log.read_text() for log in (programs.folder / "run" / "logs").iterdir())
    assert "joined" in logs
    assert "out of date" not in output + logs
    assert "Warning" not in output + logs

    # when two of its episodes are recorded, without a display
    code, output = programs.run(
        *("impala-eval", "--checkpoint", "run", "--episodes", "2", "--video", "videos", "--json"),
        DISPLAY="",
        WAYLAND_DISPLAY="",
    )

    # then the report is all that it prints, and each video shows the episode of that return
    assert code == 0, output
    report = json.loads(output)
    assert len(report["videos"]) == len(report["returns"]) == 2
    for seed, (path, episode_return) in enumerate(
        zip(report["videos"], report["returns"], strict=True)
    ):
        version = report["weights_version"]
        name = f"cartpole-v0_v{version}_seed{seed}_return{episode_return:g}.mp4"
        assert path == f"videos/{name}"
        assert frames_of(programs.folder / path) == episode_return + 1
        picture = first_picture_of(programs.folder / path)
        assert picture.shape == (400, 600, 3)
        assert (picture < 50).all(axis=-1).any()  # the cart is black
        assert (picture > 200).all(axis=-1).mean() > 0.9  # and there is much white about it

    # and a file instead of a directory is refused in a sentence
    code, output = programs.run("impala-eval", "--checkpoint", "run", "--video", path)
    assert code == 2
    assert output == (
        f"error: cannot write videos into {path}: it is a file; give --video another directory\n"
    )
