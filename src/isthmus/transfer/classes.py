"""Classes of items to tell apart, and which items teach and which examine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from isthmus.errors import InputError
from isthmus.rng import generator
from isthmus.types import Ints

if TYPE_CHECKING:
    from isthmus.transfer.scene import Scene

#: Items that a class needs.
LEAST: Final = 5
#: Share of the items that examine.
HELD_OUT: Final = 0.2


@dataclass(frozen=True)
class Classes:
    """Items and their classes.

    Parameters
    ----------
    names : tuple of str
        Of the classes.
    rows, codes : int64 arrays (n,)
        Items of the corpus, and the class of each.
    held : bool array (n,)
        Items that do not teach.
    """

    names: tuple[str, ...]
    rows: Ints
    codes: Ints
    held: np.ndarray

    @classmethod
    def of(cls, scene: Scene, kind: str, seed: int) -> Classes:
        """Return the classes of the items with a text: of the target (``categories``) or of all (``domain``).

        Raises
        ------
        InputError
            There are not two classes of at least five items.
        """
        table = scene.items.with_row_index("row").with_columns(text=pl.Series(scene.texts))
        if kind == "domain":
            named = table.with_columns(name="domain")
        else:
            kinds = scene.items.schema.get("categories")
            last = pl.col("categories").list.last() if isinstance(kinds, pl.List) else pl.lit(None, pl.String)
            named = table.filter(pl.col("domain") == scene.domain).with_columns(name=last)
        used = named.filter(pl.col("name").is_not_null() & (pl.col("text") != ""))
        used = used.filter(pl.len().over("name") >= LEAST)
        names = sorted(used["name"].unique().to_list())
        if len(names) < 2:
            raise InputError(
                f"there are not two {kind} with {LEAST} items each to tell apart",
                where=f"domain '{scene.domain}'",
                fix="give items categories, or take another head",
            )
        rows = used["row"].to_numpy().astype(np.int64)
        codes = used["name"].replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
        held = generator(seed, "classes").random(rows.size) < HELD_OUT
        if not held.any():
            held[-1] = True
        return cls(tuple(names), rows, codes, held)

    @property
    def taught(self) -> tuple[Ints, Ints]:
        """Items that teach, and their classes."""
        return self.rows[~self.held], self.codes[~self.held]

    @property
    def examined(self) -> tuple[Ints, Ints]:
        """Items that examine, and their classes."""
        return self.rows[self.held], self.codes[self.held]
