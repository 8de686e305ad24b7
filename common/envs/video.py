"""Videos of episodes, one file each, by Gymnasium's own recorder (the extra `video`)."""

import contextlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import RecordVideo

from impala_redis.common.errors import ConfigError, UnsupportedEnvironment

# The most that the recorder holds of an episode, in memory: a longer video is cut, the episode not.
PICTURES_BYTES = 1_000_000_000


def prepare_directory(directory: Path) -> None:
    """Makes the directory. Raises ConfigError: it cannot be written, or packages are missing."""
    missing = [name for name in ("moviepy", "pygame") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"videos need {' and '.join(missing)}: run pip install 'impala-redis[video]', or in "
            "a checkout scripts/setup.sh video"
        )
    # Pictures need neither a window nor sound, and pygame must not write to standard output.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=directory).cleanup()
    except OSError as error:
        why = "it is a file" if directory.is_file() else error.strerror
        raise ConfigError(
            f"cannot write videos into {directory}: {why}; give --video another directory"
        ) from error


@contextlib.contextmanager
def recording(directory: Path) -> Iterator["Recording"]:
    """The video of one episode; it is gone after the `with` unless `keep` was called."""
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(dir=directory, prefix=".recording-") as folder,
    ):
        warnings.simplefilter("ignore")  # the recorder's, about folders and empty videos
        yield Recording(directory, Path(folder))


class Recording:
    """Records one episode."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self._directory = directory
        self._folder = folder  # holds the video until it is complete
        self._recorder: _Recorder | None = None

    def wrap(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        """Records this environment's next episode. Raises UnsupportedEnvironment."""
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise UnsupportedEnvironment("it draws no pictures (render mode rgb_array)")
        self._recorder = _Recorder(env, str(self._folder), episode_trigger=lambda n: n == 0)
        return self._recorder

    def keep(self, name: str) -> Path:
        """Writes the episode so far to NAME.mp4 in the directory. Raises ConfigError."""
        assert self._recorder is not None, "nothing was wrapped"
        path = self._directory / f"{name}.mp4"
        try:
            if self._recorder.recording:
                self._recorder.stop_recording()  # type: ignore[no-untyped-call]
            (written,) = self._folder.glob("*.mp4")
            written.replace(path)
        except (OSError, ValueError) as error:
            why = (str(error) or "no reason").splitlines()[0]
            raise ConfigError(f"cannot write the video {path}: {why}") from error
        return path


class _Recorder(RecordVideo[Any, Any]):
    """Gymnasium's recorder, with a bound on the memory that it takes."""

    def reset(self, **options: Any) -> Any:
        """Resets; the size of the first picture bounds their number."""
        result = super().reset(**options)
        picture = self.recorded_frames[0] if self.recorded_frames else None
        if not isinstance(picture, np.ndarray):
            raise ValueError("it drew no picture")
        self.video_length = max(1, PICTURES_BYTES // picture.nbytes)
        return result
