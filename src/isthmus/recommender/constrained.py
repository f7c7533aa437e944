"""A recommender whose lists keep declared rules."""

from __future__ import annotations

import polars as pl

from isthmus.recommender.declared import Declared, declare
from isthmus.recommender.facade import Recommender


def constrained(model: Recommender, rules: pl.DataFrame, links: pl.DataFrame | None = None) -> Recommender:
    """Return a recommender that keeps ``rules``, beside those it has; conflicts are logged as warnings.

    The rules are saved with the model. Nothing is learned again.

    Parameters
    ----------
    model : Recommender
        Any fitted recommender.
    rules : polars.DataFrame
        rule (``after``, ``not before``, ``excludes``), head, tail, weight
        (:meth:`isthmus.model.constraints.Constraints.of`).
    links : polars.DataFrame, optional
        Which item is which entity; by default the links the model was fitted with, if its methods looked at a graph.

    Raises
    ------
    DataError
        A column is missing, or there is no such rule.
    """
    graph = model.content.readers.knowledge.graph
    if links is None and graph is not None:
        links = graph.links
    return Recommender(declare(model.content, Declared.of(rules, links)))
