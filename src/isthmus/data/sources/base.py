"""What every reader yields, and how text files are cut into blocks of whole lines."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

import polars as pl

from isthmus.errors import DataError

#: Column of every batch: line (or record, or row of a query) in the source, counted from 1.
LINE: Final = "@line"
FILE: Final = "@file"

BLOCK_BYTES: Final = 1 << 25
LONGEST_LINE: Final = 1 << 27
_OPENERS: Final[dict[bytes, Callable[..., object]]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}

SPOILT_SCHEMA: Final = {LINE: pl.Int64(), "reason": pl.String(), "raw": pl.String()}


#: A byte that text does not hold as a rule, so that lines are read as a table of one column.
_NOWHERE: Final = b"\x01"


def lines_of(data: bytes) -> pl.Series:
    r"""Return the lines of a block of text.

    Examples
    --------
    >>> lines_of(b"a,b\n\x01\n").to_list()
    ['a,b', '\x01']
    """
    if _NOWHERE in data:
        return pl.Series("raw", data.decode().split("\n")[:-1], dtype=pl.String)
    table = pl.read_csv(
        b"raw\n" + data,
        separator=_NOWHERE.decode(),
        quote_char=None,
        schema={"raw": pl.String},
        empty_string_is_null=False,
    )
    return table["raw"]


def no_spoilt() -> pl.DataFrame:
    """Return an empty table of lines that could not be read."""
    return pl.DataFrame(schema=SPOILT_SCHEMA)


@dataclass(frozen=True)
class Batch:
    """Some rows of one source.

    Parameters
    ----------
    label : str
        The file (or query) as messages and rejects name it.
    frame : polars.DataFrame
        Raw columns as the file has them, and ``@line``.
    spoilt : polars.DataFrame
        Lines that are no rows: @line, reason, raw.
    blank : int
        Empty lines, passed over.
    """

    label: str
    frame: pl.DataFrame
    spoilt: pl.DataFrame = field(default_factory=no_spoilt)
    blank: int = 0


@dataclass(frozen=True)
class Block:
    """Whole lines of a text file as UTF-8, the number of the first one, and whether bytes had to be replaced."""

    data: bytes
    first_line: int
    replaced: bool = False


def blocks(path: Path, *, encoding: str = "utf-8", quote: str = "", size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield a text file in blocks of whole lines, unpacked and turned into UTF-8; memory is bounded.

    A block never ends inside a quoted cell, unless a quote is left open for longer than a block.

    Raises
    ------
    DataError
        A damaged or truncated archive, an unknown encoding, or no line end within 128 MB.
    """
    decoder = _decoder(path, encoding)
    line, rest = 1, b""
    with _damage(path), _open(path) as handle:
        first = True
        while chunk := handle.read(size):
            text = chunk if decoder is None else decoder.decode(chunk).encode()
            text = text.removeprefix(codecs.BOM_UTF8) if first else text
            data, first = rest + text, False
            cut = _cut(data, quote.encode(), size)
            if cut == 0 and len(data) > LONGEST_LINE:
                raise DataError(
                    f"line {line} is longer than {LONGEST_LINE >> 20} MB", where=path, fix="check the file's format"
                )
            if cut:
                yield _block(data[:cut], line)
                line += data.count(b"\n", 0, cut)
            rest = data[cut:]
        if decoder is not None:
            rest += decoder.decode(b"", final=True).encode()
    if rest:
        yield _block(rest if rest.endswith(b"\n") else rest + b"\n", line)


def _block(data: bytes, line: int) -> Block:
    try:
        data.decode("ascii") if data.isascii() else codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError:
        return Block(data.decode("utf-8", "replace").encode(), line, replaced=True)
    return Block(data, line, replaced=False)


def _decoder(path: Path, encoding: str) -> codecs.IncrementalDecoder | None:
    try:
        info = codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"unknown encoding '{encoding}'", where=path, fix="use a name such as utf-8, gb18030") from None
    if info.name in ("utf-8", "utf-8-sig", "ascii"):
        return None
    return info.incrementaldecoder(errors="replace")


def _cut(data: bytes, quote: bytes, size: int) -> int:
    """Return the length of the longest head of ``data`` that ends with a line, outside quotes."""
    end = data.rfind(b"\n") + 1
    if not quote or quote not in data:
        return end
    cut = end
    odd = data.count(quote, 0, cut) % 2
    while odd and cut:
        previous = data.rfind(b"\n", 0, cut - 1) + 1
        odd ^= data.count(quote, previous, cut) % 2
        cut = previous
    return end if cut == 0 and len(data) > 2 * size else cut


def _open(path: Path) -> IO[bytes]:
    try:
        with path.open("rb") as handle:
            head = handle.read(2)
    except FileNotFoundError:
        raise DataError("no such file", where=path, fix="check path in the spec; it is relative to the spec") from None
    except IsADirectoryError:
        raise DataError("is a folder", where=path, fix='name its files, for example "folder/*.csv"') from None
    except PermissionError:
        raise DataError("may not be read", where=path, fix="check its permissions") from None
    opener = _OPENERS.get(head)
    return cast("IO[bytes]", opener(path, "rb")) if opener else path.open("rb")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise DataError("the archive is cut off", where=path, fix="fetch the file again") from None
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(f"cannot be read, or is damaged: {error}", where=path, fix="fetch the file again") from None
