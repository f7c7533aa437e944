"""A recommender whose lists keep declared rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import polars as pl

from isthmus.data.sequences import Histories
from isthmus.log import logger
from isthmus.model.base import Method
from isthmus.model.blend import Blend
from isthmus.model.constraints import Constraints
from isthmus.recommender.facade import Recommender
from isthmus.types import Bools, Floats


@dataclass(frozen=True)
class ConstrainedBlend(Blend):
    """A blend whose scores keep rules.

    Parameters
    ----------
    constraints : Constraints, optional
        The rules; none by default.
    """

    constraints: Constraints | None = None

    def score(self, methods: Sequence[Method], histories: Histories, new: Bools) -> Floats:
        """Return the scores of the blend, (B, T), lifted, or ``-inf``, as the rules say."""
        scores = super().score(methods, histories, new)
        return scores if self.constraints is None else self.constraints.apply(scores, histories, methods[0].target)


def constrained(model: Recommender, rules: pl.DataFrame, links: pl.DataFrame | None = None) -> Recommender:
    """Return a recommender that keeps ``rules`` when it ranks; conflicts are logged as warnings.

    Rules are not saved with the model: they are given again when it is opened.

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
    made = Constraints.of(rules, model.items, links)
    for problem in made.problems:
        logger.warning("rules: %s", problem)
    targets = {
        domain: replace(
            target,
            blend=ConstrainedBlend(
                **{part.name: getattr(target.blend, part.name) for part in fields(Blend)}, constraints=made
            ),
        )
        for domain, target in model.targets.items()
    }
    return Recommender(replace(model.content, targets=targets))
