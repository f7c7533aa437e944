"""Films of items: a few frames, each read like a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from isthmus.data.media import Folders
from isthmus.encode.files import BROKEN, TOO_LARGE, FileEncoder
from isthmus.encode.image import MOST_PIXELS, ClassicalImages, describe
from isthmus.errors import NotFoundError
from isthmus.types import Floats

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES: Final = 8


class SampledFrames(FileEncoder):
    """Mean and deviation of the classical descriptor over frames sampled evenly in time; decoded by PyAV."""

    kind: ClassVar[str] = "video"
    most_bytes: ClassVar[int] = 2_000_000_000

    def __init__(self, folders: Folders, *, cache: Path | None = None) -> None:
        super().__init__(folders, cache=cache)
        self._frame = ClassicalImages(folders)

    @property
    def fingerprint(self) -> str:
        """Hash of what is computed."""
        return f"video-{FRAMES}-{self._frame.fingerprint}"

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        return 2 * self._frame.dim

    def read(self, files: Sequence[Path]) -> list[Floats | str]:
        """Return the vector of each film, or why there is none."""
        return [_read(file) for file in files]


def _read(file: Path) -> Floats | str:
    try:
        import av
    except ImportError as error:
        raise NotFoundError("films cannot be read", where="encode", fix="pip install 'isthmus[media]'") from error
    try:
        rows = [describe(frame) for frame in sample(file)]
    except MemoryError:
        return TOO_LARGE
    except (av.FFmpegError, ValueError, IndexError, OSError):
        return BROKEN
    return np.concatenate([np.mean(rows, axis=0), np.std(rows, axis=0)]).astype(np.float32) if rows else BROKEN


def sample(file: Path) -> Iterator[Image]:
    """Yield :data:`FRAMES` frames of a film at equal steps of its length, fewer where it is shorter.

    Raises
    ------
    MemoryError
        A frame has more than :data:`isthmus.encode.image.MOST_PIXELS` pixels.
    """
    import av

    with av.open(str(file)) as opened:
        stream = opened.streams.video[0]
        if stream.width * stream.height > MOST_PIXELS:
            raise MemoryError
        length = opened.duration or 0
        for step in range(FRAMES if length else 1):
            if length:
                opened.seek(int(length * (step + 0.5) / FRAMES), any_frame=False)
            frame = next(iter(opened.decode(stream)), None)
            if frame is not None:
                yield frame.to_image()  # type: ignore[no-untyped-call]
