"""Static text encoder: one vector a token, no network; a text is the mean of its tokens. Made by `isthmus distil`."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.encode.base import Templated, unit
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder
from isthmus.errors import ArtefactError, NotFoundError
from isthmus.files import Json, new_folder, read_json, sha256, write_json
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT: Final = 1
CARD: Final = "isthmus.json"
#: What may stand before the folder of a static encoder.
PREFIX: Final = "static:"
#: Rows for what the tokeniser does not know: characters, and pairs of neighbours, share them by their hash.
HASHED: Final = 4096
#: Texts read at a time.
BLOCK: Final = 4096


@dataclass(frozen=True)
class Tokens:
    """Texts as rows of counts.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Cuts a text into pieces of its vocabulary ``V``.

    Notes
    -----
    What the vocabulary lacks is cut into characters and pairs of neighbours, each counted in one of :data:`HASHED`
    columns after the vocabulary by its CRC-32: Chinese texts share columns where they share characters, also with a
    tokeniser that was made for English.
    """

    tokenizer: Tokenizer

    @cached_property
    def size(self) -> int:
        """Columns: the vocabulary and the hashed ones."""
        return int(self.tokenizer.get_vocab_size()) + HASHED

    @cached_property
    def _unknown(self) -> int | None:
        found = [self.tokenizer.token_to_id(token) for token in ("[UNK]", "<unk>")]
        return next((number for number in found if number is not None), None)

    def count(self, texts: Sequence[str]) -> sparse.csr_array:
        """Return how often each column is met in each text, (len(texts), V + HASHED) float32."""
        parts = [sparse.csr_array((0, self.size), dtype=np.float32)]
        for start in range(0, len(texts), BLOCK):
            block = list(texts[start : start + BLOCK])
            read = self.tokenizer.encode_batch(block, add_special_tokens=False)
            rows = [np.array(one.ids, dtype=np.int64) for one in read]
            if self._unknown is not None:
                for place, one in enumerate(read):
                    if self._unknown in one.ids:
                        rows[place] = self._with_hashed(rows[place], block[place], one.offsets)
            indptr = np.concatenate([[0], np.cumsum([row.size for row in rows])])
            columns = np.concatenate([*rows, np.zeros(0, np.int64)])
            counted = sparse.csr_array(
                (np.ones(columns.size, np.float32), columns, indptr), shape=(len(block), self.size)
            )
            counted.sum_duplicates()
            parts.append(counted)
        return sparse.csr_array(sparse.vstack(parts, format="csr"))

    def _with_hashed(self, ids: Ints, text: str, offsets: Sequence[tuple[int, int]]) -> Ints:
        """Return the ids without the unknown one, and the columns of what is behind it."""
        spans = [span for span, number in zip(offsets, ids, strict=True) if number == self._unknown]
        letters = [(place, text[place]) for first, last in spans for place in range(first, last)]
        pieces = [letter for _, letter in letters]
        pieces += [one + two for (at, one), (after, two) in pairwise(letters) if after == at + 1]
        first = self.size - HASHED
        hashed = [first + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % HASHED for piece in pieces]
        return np.concatenate([ids[ids != self._unknown], np.array(hashed, dtype=np.int64)])


class StaticEncoder(Templated):
    """Reads item texts with a table of token vectors: about a hundred times as fast as the model it was made from.

    Parameters
    ----------
    folder : str or Path
        What ``isthmus distil --student static`` wrote; ``static:`` may stand before it.
    template : Template
        What makes up the text of an item.

    Raises
    ------
    ArtefactError
        No static encoder there, a file is missing or changed, or it has another format version.
    """

    kind = "static"

    def __init__(self, folder: str | Path, *, template: Template | None = None) -> None:
        self.folder = Path(str(folder).removeprefix(PREFIX)).expanduser()
        self.template = template or Template()
        self._card = _read_card(self.folder)

    @cached_property
    def model_fingerprint(self) -> str:
        """Hash of the token table and the tokeniser."""
        return hashlib.sha256(f"static {FORMAT} {self._card['files']}".encode()).hexdigest()[:32]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(str(self._card["dim"]))

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, one row an item; zeros for an item without any text."""
        return self.encode_texts(self.texts(items).to_list())

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return (len(texts), D) float32, rows of length 1; zeros for a text without a token."""
        return unit(np.asarray(self._tokens.count(texts) @ self._table, dtype=np.float32))

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Floats]]:
        """Yield (places in ``texts``, their vectors) block by block."""
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            yield np.arange(start, start + len(block)), self.encode_texts(block)

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(read_tokenizer(self.folder / "tokenizer.json"))

    @cached_property
    def _table(self) -> Floats:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            table = load_file(self.folder / "static.safetensors")["table"].astype(np.float32)
        except (SafetensorError, OSError, KeyError) as error:
            raise ArtefactError(
                f"the static encoder is damaged: {error}", where=self.folder, fix="distil it"
            ) from error
        if table.shape != (self._tokens.size, self.dim):
            raise ArtefactError("the token table does not fit the tokeniser", where=self.folder, fix="distil it again")
        return table


def write_static(path: Path, table: Floats, tokenizer: Tokenizer, said: Json) -> None:
    """Write a static encoder to folder ``path``, whole or not at all: ``table`` (V + HASHED, D) is kept as float16."""
    from safetensors.numpy import save_file

    with new_folder(path) as folder:
        save_file({"table": np.ascontiguousarray(table.astype(np.float16))}, folder / "static.safetensors")
        tokenizer.save(str(folder / "tokenizer.json"))
        files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        write_json(
            folder / CARD, {**said, "format": FORMAT, "encoder": "static", "dim": table.shape[1], "files": files}
        )


def read_tokenizer(file: Path) -> Tokenizer:
    """Return the tokeniser in ``file``, without limits of length or padding."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise NotFoundError("tokenizers is not installed", where="encode", fix="pip install 'isthmus[text]'") from error
    if not file.is_file():
        raise ArtefactError("the tokeniser is missing (tokenizer.json)", where=file.parent)
    try:
        found = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise ArtefactError(f"tokenizer.json is damaged: {error}", where=file.parent) from error
    found.no_truncation()
    found.no_padding()
    return found


def is_static(model: str | None) -> bool:
    """Return whether ``model`` names a static encoder: by its prefix, or a folder with its card."""
    if model is None:
        return False
    if model.startswith(PREFIX):
        return True
    card = Path(model).expanduser() / CARD
    return card.is_file() and read_json(card, what="text model").get("encoder") == "static"


def open_encoder(model: str | None) -> TextEncoder | StaticEncoder:
    """Return the encoder that ``model`` names: static, a folder or name of a language model, or the bundled one.

    Raises
    ------
    NotFoundError
        No such model.
    ArtefactError
        The model's folder is damaged or unsafe.

    Examples
    --------
    >>> type(open_encoder(None)).__name__
    'TextEncoder'
    """
    return StaticEncoder(model) if model is not None and is_static(model) else TextEncoder(model)


def _read_card(folder: Path) -> Json:
    card = read_json(folder / CARD, what="static encoder")
    fix = "distil it again"
    if card.get("encoder") != "static":
        raise ArtefactError("is not a static encoder", where=folder, fix="name a folder of isthmus distil")
    if card.get("format") != FORMAT:
        raise ArtefactError(
            f"static encoder of format {card.get('format')}, this version reads {FORMAT}", where=folder, fix=fix
        )
    files = card.get("files")
    if not isinstance(files, dict) or not str(card.get("dim", "")).isdigit():
        raise ArtefactError(f"{CARD} is damaged", where=folder, fix=fix)
    for name in ("static.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ArtefactError(f"{name} is missing", where=folder, fix=fix)
        if sha256(folder / name) != files.get(name):
            raise ArtefactError(f"{name} was changed since it was written", where=folder, fix=fix)
    return card
