"""Reports of the tasks beside lists: predicted ratings, and classes of items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from isthmus.evaluate.cards import data_card
from isthmus.evaluate.classes import BY_CLASS, WHOLE, class_errors, class_tests
from isthmus.evaluate.errors_of_ratings import ERRORS, Rated, chance_metrics, rating_errors, rating_tests
from isthmus.evaluate.tables import Sheet, TableReport, interval
from isthmus.model.rating_blend import CELLS
from isthmus.pipeline.classify import FittedClasses
from isthmus.pipeline.labels import CHOOSE, EXAMINE, TEACH, LabelSettings
from isthmus.pipeline.rate import FittedRatings
from isthmus.split.temporal import TEST

#: A corrected p-value below this counts as a difference.
ALPHA: Final = 0.05
_HOW: Final = (
    "Settings and weights were chosen on valid; models then learned from train and valid, "
    "the rating head from train only."
)


def rating_report(fitted: FittedRatings, *, seed: int = 0) -> TableReport:
    """Return the report of predicted ratings; the test part is read here, once.

    Its ``figures`` hold ``errors`` (rows of :func:`isthmus.evaluate.errors_of_ratings.rating_errors`), ``tests``,
    ``weights`` and ``tuning``.
    """
    task = fitted.task
    rated = fitted.judged(task.asked(TEST))
    errors, tests = rating_errors(rated, seed=seed), rating_tests(rated, "blend", seed=seed)
    whole = tests.filter(pl.col("slice") == "all")
    chance = _chances(fitted, rated)
    rival = whole.sort("difference", descending=True).row(0, named=True)
    first = errors.filter(pl.col("slice") == "all")
    sheets = [
        Sheet(
            "Errors on the test part",
            ["system", "MAE", "MSE", "RMSE", "R²", "MSE: blend − system", "p (Holm)"],
            _system_rows(first, whole),
            "Figures with 95 % intervals over persons. Ratings are on the scale of the corpus.",
        ),
        Sheet(
            "RMSE by who and what is known",
            ["slice", "ratings", "persons", *first["system"].unique(maintain_order=True).to_list()],
            _slice_rows(errors),
            "A new person gave no rating in the target before test, a new item got none.",
        ),
        *([Sheet("As chances of a yes", ["system", "log loss", "AUC", "mean ÷ share"], chance)] if chance else []),
        Sheet("Weights of the blend", ["pairs", *fitted.blend.models], _weights(fitted)),
        Sheet(
            "Chosen on validation",
            ["model", "settings", "RMSE"],
            [[line.model, _words(line.settings), line.rmse] for line in fitted.log],
        ),
    ]
    where = "and those of other domains" if task.elsewhere else "of the target"
    learned = f"Learned from {len(fitted.taught):,} ratings {where}; {rated.truth.size:,} test ratings. {_HOW}"
    notes = [_against(str(rival["system"]), rival, "squared error", lower=True), learned]
    return TableReport(
        f"{task.split.corpus.name}: ratings in {task.domain}",
        notes,
        sheets,
        cards={"protocol": task.split.card, "data": data_card(task.split.corpus)},
        figures={
            "kind": "ratings",
            "domain": task.domain,
            "errors": errors.to_dicts(),
            "tests": tests.to_dicts(),
            "chances": [dict(zip(("system", "log_loss", "auc", "calibration"), row, strict=True)) for row in chance],
            "weights": {name: list(row) for name, row in fitted.blend.weights.items()},
            "models": list(fitted.blend.models),
            "tuning": [{"model": c.model, "settings": c.settings, "rmse": c.rmse} for c in fitted.log],
        },
    )


def class_report(fitted: FittedClasses, corpus_card: Mapping[str, object], how: LabelSettings) -> TableReport:
    """Return the report of classes; the items that examine are read here, once.

    Its ``figures`` hold ``errors`` (rows of :func:`isthmus.evaluate.classes.class_errors`), ``tests``, ``weights`` and
    ``tuning``.

    Parameters
    ----------
    fitted : FittedClasses
        What is measured.
    corpus_card : mapping
        From :func:`isthmus.evaluate.cards.data_card`.
    how : LabelSettings
        Which label it was.
    """
    told, found = fitted.judged(), fitted.labelled
    errors, tests = class_errors(told, seed=how.seed), class_tests(told, "blend", seed=how.seed)
    whole = errors.filter(pl.col("class") == "all")
    rival = tests.sort("difference").row(0, named=True)
    counts = {name: int((found.parts == part).sum()) for name, part in
              (("teach", TEACH), ("choose", CHOOSE), ("examine", EXAMINE))}  # fmt: skip
    notes = [
        _against(str(rival["system"]), rival, "accuracy", lower=False),
        f"{len(found.names)} classes; {counts['teach']:,} items teach, {counts['choose']:,} choose, "
        f"{counts['examine']:,} examine; {found.unlabelled.size:,} have no label; {found.rare:,} are of rarer classes "
        "and left out. Items with the same text are in the same part.",
        f"The name of its class stands in the text of {found.named:.0%} of the labelled items.",
    ]
    opinions = list(fitted.log_chances(found.rows[:1]))[1:]
    sheets = [
        Sheet(
            "On items that did not teach",
            ["system", "accuracy", "macro precision", "macro recall", "macro F1", "blend − system", "p (Holm)"],
            _class_rows(whole, tests),
            "Figures with 95 % intervals over items.",
        ),
        Sheet(
            "By class: the blend",
            ["class", "items", "precision", "recall", "F1"],
            _by_class(errors.filter((pl.col("class") != "all") & (pl.col("system") == "blend"))),
        ),
        Sheet(
            "Chosen on validation",
            ["opinion", "weight in the blend", "strength", "accuracy"],
            [[name, float(w), row["strength"], row["accuracy"]]
             for name, w, row in zip(opinions, fitted.weights, fitted.log, strict=True)],
        ),
    ]  # fmt: skip
    return TableReport(
        f"{corpus_card['name']}: {how.label} of items",
        notes,
        sheets,
        cards={"data": corpus_card, "labels": {**vars(how), "names in texts": found.named}},
        figures={
            "kind": "classes",
            "errors": errors.to_dicts(),
            "tests": tests.to_dicts(),
            "weights": dict(zip(opinions, fitted.weights.tolist(), strict=True)),
            "tuning": fitted.log,
            "items": counts,
            "named": found.named,
        },
    )


def _against(rival: str, test: Mapping[str, object], what: str, *, lower: bool) -> str:
    """Return the sentence about the blend and the best other system."""
    difference, p = float(str(test["difference"])), float(str(test["p_holm"]))
    if p >= ALPHA:
        return (
            f"No detectable difference in {what} between the blend and “{rival}”, the best other system (p = {p:.3f})."
        )
    better = difference < 0 if lower else difference > 0
    return (
        f"The blend is {'better' if better else 'worse'} than “{rival}”, the best other system, in {what} "
        f"({difference:+.4f}, p = {p:.3f})."
    )


def _system_rows(errors: pl.DataFrame, tests: pl.DataFrame) -> list[list[object]]:
    rows = []
    by_system = {row["system"]: row for row in tests.iter_rows(named=True)}
    for (system,), part in errors.group_by("system", maintain_order=True):
        cells = {row["metric"]: interval(row["value"], row["low"], row["high"]) for row in part.iter_rows(named=True)}
        test = by_system.get(system)
        rows.append([system, *(cells[name] for name in ERRORS), *_tested(test)])
    return rows


def _class_rows(errors: pl.DataFrame, tests: pl.DataFrame) -> list[list[object]]:
    rows = []
    by_system = {row["system"]: row for row in tests.iter_rows(named=True)}
    for (system,), part in errors.group_by("system", maintain_order=True):
        cells = {
            row["metric"]: interval(row["value"], row["low"], row["high"], 3) for row in part.iter_rows(named=True)
        }
        rows.append([system, *(cells[name] for name in WHOLE), *_tested(by_system.get(system))])
    return rows


def _by_class(errors: pl.DataFrame) -> list[list[object]]:
    rows = []
    for (name, n), part in errors.group_by("class", "n", maintain_order=True):
        cells = {
            row["metric"]: interval(row["value"], row["low"], row["high"], 3) for row in part.iter_rows(named=True)
        }
        rows.append([name, n, *(cells[metric] for metric in BY_CLASS)])
    return rows


def _tested(test: Mapping[str, object] | None) -> list[object]:
    return [None, None] if test is None else [test["difference"], test["p_holm"]]


def _slice_rows(errors: pl.DataFrame) -> list[list[object]]:
    rows = []
    rmse = errors.filter((pl.col("metric") == "rmse") & (pl.col("slice") != "all"))
    for (name, n, persons), part in rmse.group_by("slice", "n", "persons", maintain_order=True):
        rows.append([name, n, persons, *(interval(*row) for row in part.select("value", "low", "high").iter_rows())])
    return rows


def _chances(fitted: FittedRatings, rated: Rated) -> list[list[object]]:
    """Return log loss and AUC of each system where ratings are yes or no."""
    found = {name: chance_metrics(rated.truth, said) for name, said in fitted.chances(rated).items()}
    return [[name, row["log_loss"], row["auc"], row["calibration"]] for name, row in found.items()]


def _weights(fitted: FittedRatings) -> list[list[object]]:
    order = ["all", *(f"{who}, {what}" for who, what in CELLS)]
    weights = fitted.blend.weights
    return [[name, *(float(w) for w in weights[name])] for name in order if name in weights]


def _words(settings: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())
