"""Rating prediction: biases, neighbours, contents, factors and a carried rating head, and the blend of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl

from isthmus.evaluate.errors_of_ratings import Rated
from isthmus.log import logger
from isthmus.model.base import Doubles
from isthmus.model.bias import Bias, Constant
from isthmus.model.rating_base import RatingModel, Ratings
from isthmus.model.rating_blend import RatingBlend, Stack, as_chances, learn_blend, rating_cohorts
from isthmus.model.rating_content import ContentRatings, FactorRatings
from isthmus.model.rating_knn import ResidualKnn
from isthmus.pipeline.rate_data import Question, RatingTask, item_contents
from isthmus.pipeline.rate_head import CarriedHead
from isthmus.pipeline.rater import Rater
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.types import Bools, Floats

Chosen: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class RateSettings:
    """How ratings are predicted.

    Parameters
    ----------
    target : str
        The domain.
    start : Path, optional
        Folder of a pre-trained model: it reads the items, and its rating head takes part.
    strategy : str
        What of it is trained for the rating head; see :mod:`isthmus.transfer.strategies`.
    loss : str
        Of the rating head: ``mse``, ``bce01`` or ``squared-log-ratio``.
    epochs : float, optional
        Of the rating head; by carrier if not given.
    model : str, optional
        Language model that reads the items; the bundled one by default.
    read : bool
        Whether a language model reads the items at all.
    seed : int
        For everything that draws.
    """

    target: str
    start: Path | None = None
    strategy: str = "frozen"
    loss: str = "mse"
    epochs: float | None = None
    model: str | None = None
    read: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """One line of the tuning log.

    Parameters
    ----------
    model : str
        Name.
    settings : dict
        Chosen on validation.
    rmse : float
        On validation.
    """

    model: str
    settings: Chosen
    rmse: float


@dataclass
class FittedRatings:
    """Models learned from train and valid, their blend, and what is known of people.

    Attributes
    ----------
    task : RatingTask
        Where it was learned.
    models : list of RatingModel
        Fitted, in the order of the blend; a rating head, if there is one, comes after them.
    head : CarriedHead or None
        The rating head.
    blend : RatingBlend
        Its weights.
    known, taught : Ratings
        What is known of people, and what was learned from.
    log : list of Choice
        Settings of each model.
    stack : Stack
        What the models said of validation pairs before they learned from them.
    """

    task: RatingTask
    models: list[RatingModel]
    head: CarriedHead | None
    blend: RatingBlend
    known: Ratings
    taught: Ratings
    log: list[Choice]
    stack: Stack

    @cached_property
    def rater(self) -> Rater:
        """What predicts, apart from how it was learned."""
        corpus = self.task.split.corpus
        persons = pl.DataFrame({"person": corpus.persons}).with_row_index("who")
        accounts = corpus.identities.join(persons, on="person").select("platform", "user", "who")
        items = corpus.items.select("platform", "item", "domain")
        bias = next(model for model in self.models if isinstance(model, Bias))
        head = None if self.head is None else partial(self.head.ratings, TEST, bias)
        given = self.models, self.blend, self.known, self.taught, accounts, items, head
        return Rater(self.task.domain, *given, pseudonyms=corpus.pseudonyms)

    def judged(self, question: Question) -> Rated:
        """Return what the blend and each model say of the pairs of ``question``, and their slices."""
        told = self.rater.tell(self.known, question.persons, question.items)
        known = self.task.at_home(self.known)
        slices: dict[str, Bools] = rating_cohorts(known, self.taught, question.persons, question.items)
        away = self.task.overlap(TEST)[question.persons]
        if away.any():
            slices = {**slices, "overlap": away, "new person, overlap": slices["new person"] & away}
        return Rated(question.persons, question.truth, told, slices)

    def chances(self, rated: Rated) -> dict[str, Doubles]:
        """Return what each system says as chances of a yes, calibrated on valid; empty if ratings are no yes or no."""
        stack = self.stack
        if set(stack.truth.tolist()) != {0.0, 1.0} or set(rated.truth.tolist()) != {0.0, 1.0}:
            return {}
        told = {name: stack.predictions[:, place] for place, name in enumerate(self.blend.models)}
        told["blend"] = self.blend.predict(stack.predictions, stack.cohorts)
        return {name: as_chances(told[name], stack.truth, said) for name, said in rated.predictions.items()}


def rate(split: Split, settings: RateSettings, *, contents: Mapping[str, Floats] | None = None) -> FittedRatings:
    """Return rating models of a target: settings and weights chosen on valid, then learned from train and valid.

    Parameters
    ----------
    split : Split
        Test is never looked at here.
    settings : RateSettings
        How.
    contents : mapping of str to float32 array (N, D), optional
        Contents of the items by name, if they were made before (:func:`isthmus.pipeline.rate_data.item_contents`).

    Raises
    ------
    InputError
        No such domain, or no ratings; or what :func:`isthmus.transfer.adapt.adapt` refuses.
    """
    task = RatingTask.of(split, settings.target)
    if contents is None:
        contents = item_contents(
            split, model=settings.model, start=settings.start, domain=settings.target, read=settings.read
        )
    if task.has_more:
        task = _with_or_without_sources(task, contents)
    makers, log, told = _tune(task, contents, settings.seed)
    question, taught = task.asked(VALID), task.taught(VALID)
    bias = Bias(next(choice.settings for choice in log if choice.model == Bias.name)).fit(taught)
    head = None if settings.start is None else _head(task, settings, bias)
    names = [choice.model for choice in log]
    if head is not None:
        told.append(head.ratings(VALID, bias, question.persons, question.items))
        names.append("head")
    cohorts = rating_cohorts(task.at_home(task.known(VALID)), taught, question.persons, question.items)
    stack = Stack(question.persons, question.truth, np.column_stack(told), cohorts)
    blend = learn_blend(names, stack, task.at_home(taught))
    later = task.taught(TEST)
    models = [maker(choice.settings).fit(later, seed=settings.seed) for maker, choice in zip(makers, log, strict=True)]
    return FittedRatings(task, models, head, blend, task.known(TEST), later, log, stack)


Maker: TypeAlias = Callable[[Chosen], RatingModel]


def _tune(
    task: RatingTask, contents: Mapping[str, Floats], seed: int
) -> tuple[list[Maker], list[Choice], list[Doubles]]:
    """Return how each model is made, its settings of least squared error on valid, and what it then says there."""
    taught, known, question = task.taught(VALID), task.known(VALID), task.asked(VALID)
    makers: list[Maker] = []
    log: list[Choice] = []
    told: list[Doubles] = []

    def choose(name: str, maker: Maker, grid: Sequence[Mapping[str, float]]) -> Choice:
        best: tuple[float, Chosen, Doubles] | None = None
        fitted: dict[tuple[tuple[str, float], ...], RatingModel] = {}
        for chosen in map(dict, grid):
            model = maker(chosen)
            key = tuple((name, value) for name, value in chosen.items() if name not in model.reading)
            fitted = {key: fitted[key] if key in fitted else model.fit(taught, seed=seed)}
            said = fitted[key].read_with(chosen).predict(known, question.persons, question.items)
            error = float(np.mean((said - question.truth) ** 2))
            if best is None or error < best[0]:
                best = (error, chosen, said)
        assert best is not None
        makers.append(maker)
        log.append(Choice(name, best[1], best[0] ** 0.5))
        told.append(best[2])
        logger.info("%s: rmse %.4f on valid with %s", name, best[0] ** 0.5, best[1])
        return log[-1]

    choose("mean", Constant, Constant.grid)
    bias = choose("bias", Bias, Bias.grid).settings
    choose("knn", partial(ResidualKnn, bias=bias), ResidualKnn.grid)
    tried = [
        choose(name, partial(ContentRatings, vectors, name=name, bias=bias), ContentRatings.grid)
        for name, vectors in ((f"content ({reader})", rows) for reader, rows in contents.items())
    ]
    reader = min(tried, key=lambda choice: choice.rmse).model[len("content (") : -1]
    choose("fm", partial(FactorRatings, contents[reader], name="fm", bias=bias), FactorRatings.grid)
    return makers, log, told


def _with_or_without_sources(task: RatingTask, contents: Mapping[str, Floats]) -> RatingTask:
    """Return the task that learns from the ratings of other domains too, if that is better on valid."""
    question = task.asked(VALID)
    tried = [task, replace(task, elsewhere=True)]
    errors = []
    for one in tried:
        model = ContentRatings(next(iter(contents.values()))).fit(one.taught(VALID))
        said = model.predict(one.known(VALID), question.persons, question.items)
        errors.append(float(np.mean((said - question.truth) ** 2)))
    logger.info("rmse on valid without sources %.4f, with %.4f", errors[0] ** 0.5, errors[1] ** 0.5)
    return tried[int(np.argmin(errors))]


def _head(task: RatingTask, settings: RateSettings, bias: Bias) -> CarriedHead:
    """Return the rating head of the pre-trained model, learned from train; valid chooses the epoch."""
    from isthmus.transfer.adapt import AdaptSettings

    assert settings.start is not None
    how = AdaptSettings(
        target=settings.target,
        strategy=settings.strategy,
        head="rating",
        loss=settings.loss,
        epochs=settings.epochs,
        seed=settings.seed,
    )
    return CarriedHead.learn(settings.start, task, how, bias)


def pairs_of_test(fitted: FittedRatings) -> pl.DataFrame:
    """Return the pairs of the test part: platform, user, item; of a person with several accounts there, one."""
    corpus, question = fitted.task.split.corpus, fitted.task.asked(TEST)
    keys = (
        corpus.items[question.items]
        .select("platform", "item")
        .with_columns(who=pl.Series(question.persons).cast(pl.UInt32))
    )
    found = keys.join(fitted.rater.accounts, on=["platform", "who"], how="left", maintain_order="left")
    return found.unique(["platform", "who", "item"], keep="first", maintain_order=True).select(
        "platform", "user", "item"
    )
