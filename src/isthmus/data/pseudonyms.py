"""Names of users as keyed hashes: what is written names nobody, and who has the key finds everybody."""

from __future__ import annotations

import hmac
import json
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import polars as pl

from isthmus.errors import InputError

#: Characters of a secret, at least.
SHORTEST: Final = 16
_FORM: Final = re.compile(r"~[A-Za-z0-9_-]{22}")


def secret_of(env: str, where: object) -> bytes:
    """Return the secret in the environment variable ``env``.

    Raises
    ------
    InputError
        It is not set, or too short.
    """
    secret = os.environ.get(env, "")
    if len(secret) < SHORTEST:
        raise InputError(
            f"environment variable {env} holds no secret of {SHORTEST} characters or more",
            where=where,
            fix="set it to a long random text and keep it: the same secret gives the same names",
        )
    return secret.encode()


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms under the key in an environment variable: ``~`` and 132 bits of an HMAC-SHA256 (RFC 2104).

    One user has another pseudonym on every platform. What has the form of a pseudonym already stays as it is.

    Parameters
    ----------
    env : str
        Name of the environment variable. Nothing that is written holds its value.
    check : str
        Tells the right key from another one; empty if that is not known.

    Examples
    --------
    >>> import os
    >>> os.environ["SHOP_SECRET"] = "sixteen characters or more"
    >>> names = Pseudonyms("SHOP_SECRET")
    >>> names.user("shop", "u17")
    '~QdmJoaqme13rJj8DrN3hK7'
    >>> names.user("shop", names.user("shop", "u17")) == names.user("shop", "u17")
    True
    """

    env: str
    check: str = ""

    @classmethod
    def of_json(cls, said: object) -> Self | None:
        """Return what :meth:`to_json` gave, None where nothing was."""
        return cls(str(said["env"]), str(said["check"])) if isinstance(said, Mapping) else None

    def to_json(self) -> dict[str, str]:
        """Return what a manifest says."""
        return {"env": self.env, "check": _text(self.key, "check")}

    @cached_property
    def key(self) -> bytes:
        """The key.

        Raises
        ------
        InputError
            The environment variable is not set, or holds another key than the one the names were made with.
        """
        key = secret_of(self.env, "pseudonyms")
        if self.check and not hmac.compare_digest(self.check, _text(key, "check")):
            fix = "set it to the secret the corpus was imported with"
            raise InputError(f"environment variable {self.env} holds another secret", where="pseudonyms", fix=fix)
        return key

    def require(self) -> None:
        """Raise what :attr:`key` raises, if it does."""
        _ = self.key

    def user(self, platform: str, user: str) -> str:
        """Return the pseudonym of a user of a platform."""
        return user if _FORM.fullmatch(user) else _text(self.key, "user", platform, user)

    def person(self, name: str) -> str:
        """Return the pseudonym of a person's name."""
        return name if _FORM.fullmatch(name) else _text(self.key, "person", name)

    def users(self, accounts: pl.DataFrame) -> pl.Series:
        """Return the pseudonyms (String) of the accounts (platform, user) of a table, row by row; null stays null."""
        known = accounts.select("platform", "user").drop_nulls().unique()
        names = [self.user(platform, user) for platform, user in known.iter_rows()]
        known = known.with_columns(name=pl.Series(names, dtype=pl.String))
        found = accounts.select("platform", "user").join(
            known, on=["platform", "user"], how="left", maintain_order="left"
        )
        return found["name"].alias("user")

    def persons(self, names: pl.Series) -> pl.Series:
        """Return the pseudonyms (String) of persons' names, row by row; null stays null."""
        known = names.drop_nulls().unique()
        new = pl.Series([self.person(name) for name in known], dtype=pl.String)
        return names.replace_strict(known, new, default=None, return_dtype=pl.String)

    def hide(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return a table with pseudonyms for its users, and for its persons where they are named."""
        hidden = table.with_columns(self.users(table))
        if table.schema.get("person") == pl.String:
            hidden = hidden.with_columns(self.persons(table["person"]).alias("person"))
        return hidden


def hide(table: pl.DataFrame, pseudonyms: Pseudonyms | None) -> pl.DataFrame:
    """Return a table with pseudonyms for its users and persons, or as it is where there are none."""
    return table if pseudonyms is None else pseudonyms.hide(table)


def _text(key: bytes, *words: str) -> str:
    said = json.dumps(words, ensure_ascii=True).encode()
    return "~" + urlsafe_b64encode(hmac.digest(key, said, "sha256"))[:22].decode()
