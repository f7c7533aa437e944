"""Sounds of items: what a log-mel spectrogram is like over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from isthmus.encode.files import BROKEN, FileEncoder
from isthmus.errors import NotFoundError
from isthmus.types import Floats

#: Samples a second, bands, samples of a window and between windows, and the seconds that are listened to.
RATE: Final = 16_000
BANDS: Final = 40
WINDOW: Final = 512
HOP: Final = 256
SECONDS: Final = 120


class LogMel(FileEncoder):
    """Mean, deviation and mean change of each mel band: 3 × 40 numbers, over the first two minutes.

    Files are decoded by PyAV, whatever their format. Bands after Davis and Mermelstein (1980), with the scale of
    O'Shaughnessy (1987): ``2595 log10(1 + f / 700)``.
    """

    kind: ClassVar[str] = "audio"
    most_bytes: ClassVar[int] = 512_000_000

    @property
    def fingerprint(self) -> str:
        """Hash of what is computed."""
        return f"audio-logmel-1-{RATE}-{BANDS}-{SECONDS}"

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        return 3 * BANDS

    def read(self, files: Sequence[Path]) -> list[Floats | str]:
        """Return the statistics of each sound, or why there are none."""
        return [describe(sound) if sound.size >= WINDOW else BROKEN for sound in map(open_sound, files)]


def open_sound(file: Path) -> Floats:
    """Return the first samples of a sound, one channel at :data:`RATE`, in [-1, 1]; none if it cannot be read.

    Raises
    ------
    NotFoundError
        PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise NotFoundError("sounds cannot be read", where="encode", fix="pip install 'isthmus[media]'") from error
    parts: list[np.ndarray] = []
    try:
        with av.open(str(file)) as opened:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            for frame in opened.decode(audio=0):
                parts += [piece.to_ndarray().ravel() for piece in resampler.resample(frame)]
                if sum(part.size for part in parts) >= RATE * SECONDS:
                    break
    except (av.FFmpegError, ValueError, IndexError, OSError):  # what came before the damage counts
        pass
    whole = np.concatenate([np.zeros(0, np.float32), *parts])[: RATE * SECONDS]
    return np.asarray(whole, dtype=np.float32)


def describe(sound: Floats) -> Floats:
    """Return mean, deviation and mean absolute change of each band of the log-mel spectrogram, (3 * BANDS,).

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype("float32")
    >>> int(describe(tone)[:BANDS].argmax()) == int(mel_bands()[:, round(440 * WINDOW / RATE)].argmax())
    True
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    bands = np.log(power @ mel_bands().T + 1e-6)
    change = np.abs(np.diff(bands, axis=0)).mean(axis=0) if len(bands) > 1 else np.zeros(BANDS)
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0), change]).astype(np.float32)


def mel_bands() -> Floats:
    """Return the triangles that sum a spectrum into bands, (BANDS, WINDOW // 2 + 1)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequency = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (mid - low), (high - frequency) / (high - mid)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)
