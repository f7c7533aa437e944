"""Consents: what a person said about the use of one platform's events for lists on another platform."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isthmus.data.sequences import Histories
from isthmus.errors import ArtefactError, DataError, NotFoundError, nearest
from isthmus.files import Json, json_text, read_json, write_json
from isthmus.types import Bools, Ints

FILE: Final = "consents.json"
#: Any other platform, written in place of a name: a use of a platform's events on itself is never meant by it.
ANY: Final = "*"
#: A person by name, or by an account; then what is said. Later rows win over earlier ones.
SCHEMA: Final[dict[str, pl.DataType]] = {
    "person": pl.String(),
    "platform": pl.String(),
    "user": pl.String(),
    "from_platform": pl.String(),
    "to_platform": pl.String(),
    "allowed": pl.Boolean(),
}
_PAIR: Final = ("from_platform", "to_platform")
_KEY: Final = ["person", "platform", "user", *_PAIR]
_YES: Final = ("true", "yes", "1", "allowed", "是")
_NO: Final = ("false", "no", "0", "forbidden", "否")

Cube: TypeAlias = NDArray[np.bool_]


def empty_consents() -> pl.DataFrame:
    """Return a table in which nobody said anything: everything is allowed."""
    return pl.DataFrame(schema=SCHEMA)


def conform_consents(frame: pl.DataFrame, platforms: Sequence[str], *, where: object = "consents") -> pl.DataFrame:
    """Return ``frame`` with the columns of :data:`SCHEMA`; the last of equal rows stays.

    Parameters
    ----------
    frame : polars.DataFrame
        from_platform, to_platform, allowed, and person or else platform and user.
    platforms : sequence of str
        The platforms there are; ``*`` means any other one.
    where : object
        Named in errors.

    Raises
    ------
    DataError
        A column is missing, or a row names nobody, or ``allowed`` is neither yes nor no.
    NotFoundError
        A platform is unknown: a ban that is misspelt would protect nobody.

    Examples
    --------
    >>> said = pl.DataFrame({"person": "ann", "from_platform": "shop", "to_platform": "*", "allowed": "no"})
    >>> conform_consents(said, ["radio", "shop"]).row(0)
    ('ann', None, None, 'shop', '*', False)
    """
    missing = [name for name in ("from_platform", "to_platform", "allowed") if name not in frame.columns]
    if missing:
        raise DataError(f"lacks column(s) {', '.join(missing)}", where=where, fix=f"give {', '.join(SCHEMA)}")
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).replace("", None).alias(name)
        for name in SCHEMA
    ]
    shaped = frame.select(columns)
    nobody = pl.col("person").is_null() & (pl.col("platform").is_null() | pl.col("user").is_null())
    if shaped.filter(nobody).height:
        raise DataError("a row names nobody", where=where, fix="give person, or platform and user")
    said = pl.col("allowed").str.to_lowercase().str.strip_chars()
    shaped = shaped.with_columns(allowed=pl.when(said.is_in(_YES)).then(True).when(said.is_in(_NO)).then(False))
    if shaped["allowed"].null_count():
        raise DataError("'allowed' is neither yes nor no", where=where, fix="write true or false")
    for column in _PAIR:
        for name in shaped[column].unique().sort():
            if name != ANY and name not in platforms:
                hint = "" if name is None else nearest(name, list(platforms))
                raise NotFoundError(
                    f"no platform '{name}'{hint}", where=where, fix=f"platforms: {', '.join(platforms)}, or * for any"
                )
    by_name = pl.col("person").is_not_null()
    plain = [pl.when(~by_name).then(pl.col(name)).alias(name) for name in ("platform", "user")]
    return shaped.with_columns(plain).unique(_KEY, keep="last", maintain_order=True).cast(SCHEMA)  # type: ignore[arg-type]


def with_consents(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return ``old`` followed by ``new``; what is said again replaces what was said before."""
    return pl.concat([old, new]).unique(_KEY, keep="last", maintain_order=True)


def write_consents(consents: pl.DataFrame, folder: Path) -> None:
    """Write the table beside a model with its own checksum, whole or not at all."""
    rows = consents.select(list(SCHEMA)).to_dicts()
    write_json(folder / FILE, {"rows": rows, "sha256": _digest(rows)})


def read_consents(folder: Path) -> pl.DataFrame:
    """Return the table beside a model; nothing is said where there is none.

    Raises
    ------
    ArtefactError
        The file is damaged or was changed by hand: bans are never forgotten in silence.
    """
    if not (folder / FILE).exists():
        return empty_consents()
    said = read_json(folder / FILE, what="consents")
    as_written = (folder / FILE).read_bytes() == json_text(said).encode()
    if not as_written or said.get("sha256") != _digest(said.get("rows")):
        raise ArtefactError(
            f"{FILE} was changed since it was written", where=folder, fix="restore it, or remove it and set all again"
        )
    return pl.DataFrame(cast("list[Json]", said["rows"]), schema=SCHEMA)


def _digest(rows: object) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bans:
    """Who forbids which use, as numbers.

    Parameters
    ----------
    persons : int64 array (R,)
        Persons who forbid anything, rising.
    denied : bool array (R, Q, Q)
        Whether events of the first of ``Q`` platforms may not be used for lists on the second.
    """

    persons: Ints
    denied: Cube

    @classmethod
    def of(cls, consents: pl.DataFrame, accounts: pl.DataFrame, platforms: Sequence[str]) -> Bans:
        """Return the bans of a table of consents.

        Parameters
        ----------
        consents : polars.DataFrame
            As :data:`SCHEMA`; a row about an account is about its person.
        accounts : polars.DataFrame
            platform, user, person, name.
        platforms : sequence of str
            The ``Q`` platforms, in their order.
        """
        said = stated(consents, accounts)
        for column in _PAIR:
            said = said.join(_spelt(column, platforms), on=column)
        mixed = (pl.col("from_platform") == ANY) | (pl.col("to_platform") == ANY)
        said = said.filter(~mixed | (pl.col("from_platform_code") != pl.col("to_platform_code")))
        cells = ["person_number", "from_platform_code", "to_platform_code"]
        banned = said.sort("row").unique(cells, keep="last", maintain_order=True).filter(~pl.col("allowed"))
        persons = banned["person_number"].unique().sort().to_numpy().astype(np.int64)
        denied = np.zeros((persons.size, len(platforms), len(platforms)), dtype=bool)
        rows = np.searchsorted(persons, banned["person_number"].to_numpy())
        denied[rows, banned["from_platform_code"].to_numpy(), banned["to_platform_code"].to_numpy()] = True
        return cls(persons, denied)

    def of_persons(self, persons: Ints) -> Cube:
        """Return what each of ``persons`` forbids, (B, Q, Q)."""
        found = np.zeros((persons.size, *self.denied.shape[1:]), dtype=bool)
        place = np.searchsorted(self.persons, persons)
        place[place == self.persons.size] = 0
        known = self.persons[place] == persons if self.persons.size else np.zeros(persons.size, dtype=bool)
        found[known] = self.denied[place[known]]
        return found


def stated(consents: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    """Return what was said by person: row, person_number, allowed, from_platform, to_platform; later rows win.

    Parameters
    ----------
    consents : polars.DataFrame
        As :data:`SCHEMA`; a row about an account is about its person.
    accounts : polars.DataFrame
        platform, user, person, name.
    """
    numbered = consents.with_row_index("row")
    named = accounts.select(person_number="person", person="name").unique()
    keys = accounts.select("platform", "user", person_number="person")
    found = [
        numbered.filter(pl.col("person").is_not_null()).join(named, on="person"),
        numbered.filter(pl.col("person").is_null()).join(keys, on=["platform", "user"]),
    ]
    return pl.concat([part.select("row", "person_number", "allowed", *_PAIR) for part in found]).sort("row")


def allowed_for(histories: Histories, denied: Cube, platform: Ints, places: Ints) -> Bools:
    """Return which events may be used for lists on all of ``places``, (E,).

    Parameters
    ----------
    histories : Histories
        ``B`` histories.
    denied : bool array (B, Q, Q)
        From platform, to platform.
    platform : int array (N,)
        Platform of each item of the corpus.
    places : int array
        Platforms the list is for.
    """
    banned: Cube = np.asarray(denied[:, :, places].any(axis=2))
    kept: Bools = ~banned[histories.rows, platform[histories.items]]
    return kept


def _spelt(column: str, platforms: Sequence[str]) -> pl.DataFrame:
    """Return each word that ``column`` may hold and the code of each platform it stands for."""
    codes = list(range(len(platforms)))
    words = {column: [*platforms, *[ANY] * len(platforms)], f"{column}_code": [*codes, *codes]}
    return pl.DataFrame(words, schema={column: pl.String, f"{column}_code": pl.Int64})
