"""Pictures, sounds and films of items: where the spec says they lie, and where the corpus finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from isthmus.config import expand
from isthmus.errors import InputError
from isthmus.files import Json

if TYPE_CHECKING:
    from isthmus.data.spec import Source

#: Columns of the items table that name a file; ``video`` is a key of ``attributes``.
KINDS: Final = ("image", "audio", "video")
HERE: Final = "{}"

#: Platform -> kind -> folder.
Folders = Mapping[str, Mapping[str, str]]


def split_template(template: str) -> tuple[str, str]:
    """Return the folder and the file name of a template such as ``posters/tt{}.jpg``.

    Examples
    --------
    >>> split_template("../posters/tt{}.jpg")
    ('../posters', 'tt{}.jpg')
    >>> split_template("{}")
    ('', '{}')
    """
    before = template.split(HERE, 1)[0]
    folder = before.rsplit("/", 1)[0] if "/" in before else ""
    return folder, template[len(folder) + 1 :] if folder else template


def check_template(template: str) -> str:
    """Return what is wrong with a template, or an empty text."""
    if template.count(HERE) != 1:
        return f"'{template}' must hold {{}} once, where the value of the column goes"
    if template.startswith(("http://", "https://")):
        return f"'{template}' is an address; files are read from a folder only"
    return ""


def folders_of(sources: tuple[Source, ...], spec_path: Path) -> Json:
    """Return platform -> kind -> folder (absolute) of the items sources that name files.

    Raises
    ------
    InputError
        Two sources name different folders for one kind of file of a platform.
    """
    found: dict[str, dict[str, str]] = {}
    for source in sources:
        for kind, template in source.files.items():
            folder = Path(expand(split_template(template)[0], where=spec_path)).expanduser()
            full = str((folder if folder.is_absolute() else spec_path.parent / folder).resolve())
            kinds = found.setdefault(source.platform or "", {})
            if kinds.setdefault(kind, full) != full:
                raise InputError(f"two folders for {kind} of platform '{source.platform}'", where=spec_path)
    return cast("Json", found)


def named(values: pl.Expr, template: str) -> pl.Expr:
    """Return the file name of each value: the template with the value in the place of ``{}``; null stays null."""
    before, after = split_template(template)[1].split(HERE, 1)
    return pl.lit(before) + values + pl.lit(after)


def media_paths(items: pl.DataFrame, kind: str, folders: Folders) -> list[Path | None]:
    """Return the file of each row of ``items``; None where none is named, or where it would lie outside its folder.

    Parameters
    ----------
    items : polars.DataFrame
        Columns platform and ``kind``, or ``attributes`` with a key of that name.
    kind : str
        ``image``, ``audio`` or ``video``.
    folders : mapping
        Platform -> kind -> folder, as the manifest of a corpus has it; platform ``""`` is for all others. Nothing is
        read from elsewhere: an item's text can name no file outside.

    Examples
    --------
    >>> items = pl.DataFrame({"platform": ["a", "a", "b"], "image": ["1.jpg", "../key", "2.jpg"]})
    >>> [path and path.name for path in media_paths(items, "image", {"a": {"image": "/pictures"}})]
    ['1.jpg', None, None]
    """
    rows = items.select("platform", name=_names(items, kind)).iter_rows()
    roots = {platform: Path(kinds[kind]).resolve() for platform, kinds in folders.items() if kind in kinds}
    return [_inside(roots.get(platform, roots.get("")), name) for platform, name in rows]


def _names(items: pl.DataFrame, kind: str) -> pl.Expr:
    if kind in items.columns:
        return pl.col(kind)
    if "attributes" in items.columns:
        return pl.col("attributes").str.json_path_match(f"$.{kind}")
    return pl.lit(None, dtype=pl.String)


def _inside(root: Path | None, name: str | None) -> Path | None:
    if root is None or not name or "\0" in name or "://" in name:
        return None
    path = root / name
    return path if path.resolve().is_relative_to(root) else None
