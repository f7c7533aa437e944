"""Declared rules of a model: kept with it, and by every list it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from isthmus.data.tables import SCHEMAS, empty
from isthmus.files import Json
from isthmus.log import logger
from isthmus.model.constraints import Constraints, check_rules

if TYPE_CHECKING:
    from isthmus.recommender.store import Content

RULES: Final = "rules.parquet"
NAMES: Final = "rules-names.parquet"


@dataclass(frozen=True)
class Declared:
    """Rules, and which items the entities they name are.

    Parameters
    ----------
    rules : polars.DataFrame
        rule, head, tail, weight (:meth:`isthmus.model.constraints.Constraints.of`).
    links : polars.DataFrame
        platform, item, entity.
    """

    rules: pl.DataFrame
    links: pl.DataFrame

    @classmethod
    def of(cls, rules: pl.DataFrame, links: pl.DataFrame | None = None) -> Declared:
        """Return the rules with the links of the entities that they name.

        Raises
        ------
        DataError
            A column is missing, or there is no such rule.
        """
        check_rules(rules)
        given = rules if "weight" in rules.columns else rules.with_columns(weight=pl.lit(None, dtype=pl.Float64))
        table = given.select(pl.col(name).cast(kind) for name, kind in SCHEMAS["rules"].items())
        named = pl.concat([table["head"], table["tail"]]).unique()
        known = empty("links") if links is None else links.select(list(SCHEMAS["links"]))
        return cls(table, known.filter(pl.col("entity").is_in(named.implode())).unique(maintain_order=True))

    def __add__(self, later: Declared) -> Declared:
        """Return these rules and ``later`` ones; of two that differ in weight alone the later one holds."""
        key = ["rule", "head", "tail"]
        rules = pl.concat([self.rules, later.rules]).unique(key, keep="last", maintain_order=True)
        return Declared(rules, pl.concat([self.links, later.links]).unique(maintain_order=True))

    def save(self, folder: Path) -> bool:
        """Write the tables to a model's folder."""
        self.rules.write_parquet(folder / RULES)
        self.links.write_parquet(folder / NAMES)
        return True

    @classmethod
    def open(cls, folder: Path, said: object) -> Declared | None:
        """Return what :meth:`save` wrote, None where nothing was."""
        return cls(pl.read_parquet(folder / RULES), pl.read_parquet(folder / NAMES)) if said else None


def declare(content: Content, more: Declared | None = None) -> Content:
    """Return ``content`` whose blends keep its rules and ``more``; conflicts are logged and go into the card.

    Parameters
    ----------
    content : Content
        A model.
    more : Declared, optional
        Rules to add.
    """
    declared = content.declared if more is None else more if content.declared is None else content.declared + more
    if declared is None:
        return content
    made = Constraints.of(declared.rules, content.items, declared.links)
    for problem in made.problems:
        logger.warning("rules: %s", problem)
    targets = {
        domain: replace(target, blend=replace(target.blend, constraints=made))
        for domain, target in content.targets.items()
    }
    counts = dict(declared.rules.group_by("rule").len().sort("rule").iter_rows())
    card: Json = {**content.card, "rules": {"declared": counts, "problems": list(made.problems)}}
    return replace(content, targets=targets, card=card, declared=declared)
