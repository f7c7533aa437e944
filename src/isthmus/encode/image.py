"""Pictures of items: a classical descriptor that needs no trained weights, or any Hugging Face image model."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from isthmus.data.media import Folders
from isthmus.encode.base import unit
from isthmus.encode.files import BROKEN, TOO_LARGE, FileEncoder
from isthmus.encode.text import quiet
from isthmus.encode.weights import folder_fingerprint, locate
from isthmus.errors import ArtefactError, NotFoundError
from isthmus.types import Floats

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pixels of the largest picture that is decoded: a small file may hold a picture that fills the memory.
MOST_PIXELS: Final = 64_000_000
#: Side of the square that the classical descriptor looks at.
SIDE: Final = 64
_COLOURS: Final = (8, 3, 3)
_POINTS: Final = 8
_INSTALL: Final = "pip install 'isthmus[media]'"


class ClassicalImages(FileEncoder):
    """Colour, texture and shape: three blocks of length 1 each.

    A histogram of hue, saturation and value (Swain and Ballard 1991); uniform local binary patterns in a grid of 2 × 2
    (Ojala et al., TPAMI 2002); histograms of oriented gradients in a grid of 4 × 4 (Dalal and Triggs, CVPR 2005), the
    last two through scikit-image. It sees how a cover looks, not what it shows: a trained model, where there is one,
    says more.
    """

    kind: ClassVar[str] = "image"
    most_bytes: ClassVar[int] = 64_000_000

    @property
    def fingerprint(self) -> str:
        """Hash of what is computed."""
        return f"image-classical-1-{SIDE}"

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector: 72 + 40 + 128."""
        return int(np.prod(_COLOURS)) + 4 * (_POINTS + 2) + 16 * 8

    def read(self, files: Sequence[Path]) -> list[Floats | str]:
        """Return the descriptor of each picture, or why there is none."""
        return [found if isinstance(found, str) else describe(found) for found in map(open_image, files)]


class ModelImages(FileEncoder):
    """Vectors of a Hugging Face image model (ViT, ResNet, CLIP …), by folder or name; safetensors only, no code run.

    Parameters
    ----------
    folders : mapping
        Where pictures lie.
    model : str
        Folder or name.
    cache : Path or None, optional
        Folder of the cache.
    """

    kind: ClassVar[str] = "image"
    most_bytes: ClassVar[int] = 64_000_000

    def __init__(self, folders: Folders, model: str, *, cache: Path | None = None) -> None:
        super().__init__(folders, cache=cache)
        self._folder = locate(model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model's files."""
        return hashlib.sha256(f"image {folder_fingerprint(self._folder)}".encode()).hexdigest()[:32]

    @cached_property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        from PIL import Image

        return int(self._forward([Image.new("RGB", (SIDE, SIDE))]).shape[1])

    def read(self, files: Sequence[Path]) -> list[Floats | str]:
        """Return the vector of each picture, or why there is none."""
        opened = [open_image(file) for file in files]
        images = [image for image in opened if not isinstance(image, str)]
        vectors = iter(self._forward(images) if images else ())
        return [image if isinstance(image, str) else next(vectors) for image in opened]

    @cached_property
    def _model(self) -> tuple[object, object]:
        try:
            from transformers import AutoImageProcessor, AutoModel

            with quiet():
                processor = AutoImageProcessor.from_pretrained(self._folder, local_files_only=True, backend="pil")
                model = AutoModel.from_pretrained(self._folder, local_files_only=True, use_safetensors=True).eval()
        except ImportError as error:
            raise NotFoundError("image models are not installed", where="encode", fix=_INSTALL) from error
        except Exception as error:  # a damaged file surfaces as an error of any of several libraries
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ArtefactError(f"cannot be loaded as an image model: {reason}", where=self._folder) from error
        return processor, model

    def _forward(self, images: list[Image]) -> Floats:
        import torch

        processor, model = self._model
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]  # type: ignore[operator]
        with torch.inference_mode():
            if hasattr(model, "get_image_features"):
                found = model.get_image_features(pixel_values=pixels)
            else:
                found = model(pixel_values=pixels)  # type: ignore[operator]
        if not isinstance(found, torch.Tensor):
            pooled = getattr(found, "pooler_output", None)
            found = found.last_hidden_state.mean(1) if pooled is None else pooled
        vectors: Floats = found.flatten(1).float().numpy()
        return vectors


def image_encoder(folders: Folders, model: str | None = None, *, cache: Path | None = None) -> FileEncoder:
    """Return the encoder of pictures: the classical one, or the Hugging Face model of that folder or name."""
    return ClassicalImages(folders, cache=cache) if model is None else ModelImages(folders, model, cache=cache)


def open_image(file: Path) -> Image | str:
    """Return the picture in RGB, or the reason why it cannot be read; a huge one is not decoded.

    Raises
    ------
    NotFoundError
        Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise NotFoundError("pictures cannot be read", where="encode", fix=_INSTALL) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    return TOO_LARGE
                opened.draft("RGB", (4 * SIDE, 4 * SIDE))
                return opened.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return TOO_LARGE
    except Exception:  # a damaged file surfaces as almost any error of the decoder
        return BROKEN


def describe(image: Image) -> Floats:
    """Return the classical descriptor of a picture, (D,) float32: colour, texture and shape, each of length 1."""
    from skimage.feature import hog, local_binary_pattern

    small = image.resize((SIDE, SIDE))
    steps = np.array(_COLOURS)
    bins = np.asarray(small.convert("HSV"), dtype=np.int64).reshape(-1, 3) * steps // 256
    colours = np.bincount(np.ravel_multi_index(tuple(bins.T), _COLOURS), minlength=int(steps.prod()))
    grey = np.asarray(small.convert("L"), dtype=np.uint8)
    codes = local_binary_pattern(grey, _POINTS, 1, method="uniform").astype(np.int64)  # type: ignore[no-untyped-call]
    half = SIDE // 2
    cells = [codes[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    texture = np.concatenate([np.bincount(cell.ravel(), minlength=_POINTS + 2) for cell in cells])
    cell = SIDE // 4
    shape = hog(grey, orientations=8, pixels_per_cell=(cell, cell), cells_per_block=(1, 1), feature_vector=True)
    blocks = (np.sqrt(colours), np.sqrt(texture), shape)
    return np.concatenate([unit(np.asarray(block, dtype=np.float32)[None])[0] for block in blocks])
