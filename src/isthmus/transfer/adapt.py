"""Adaptation of a pre-trained model to a target: a strategy, a task head, and how good it got."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import polars as pl

from isthmus.errors import InputError, nearest
from isthmus.log import logger
from isthmus.model.base import Features, TrainingData
from isthmus.split.temporal import VALID, Split
from isthmus.train.fit import training_data
from isthmus.train.settings import LoopLog, LoopSettings
from isthmus.transfer.adapted import Adapted, build_head
from isthmus.transfer.adapted_files import backbone_of, keep, require_room
from isthmus.transfer.classes import Classes
from isthmus.transfer.exams import Exam, exam_of
from isthmus.transfer.pretrained import load, read_card
from isthmus.transfer.scene import LanguageReading, Scene, rated
from isthmus.types import Floats, Indices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from isthmus.model.heads import Head
    from isthmus.train.loop import Batches
    from isthmus.train.sequences import Material
    from isthmus.transfer.adapt_heads import Headed

#: Epochs unless given, by carrier and whether the head is that of classes.
EPOCHS: Final = {
    ("sequence", False): 20.0,
    ("language", False): 2.0,
    ("sequence", True): 60.0,
    ("language", True): 10.0,
}
#: Learning rates unless given, by carrier and whether all its weights may move.
RATES: Final = {
    ("sequence", True): 1e-3,
    ("sequence", False): 2e-3,
    ("language", True): 5e-5,
    ("language", False): 5e-4,
}
#: Examples of a batch: events for the sequence carrier.
SIZES: Final = {"sequence": 2048, "language": 32}
#: Evaluations without a better metric after which training stops, by whether the head is that of classes: there an
#: epoch is a few steps.
PATIENCE: Final = {False: 3, True: 12}


@dataclass(frozen=True)
class AdaptSettings:
    """How a pre-trained model is adapted.

    Parameters
    ----------
    target : str
        The domain.
    strategy : str
        What is trained (:mod:`isthmus.model.strategies`); the head of the task always is.
    head : str
        ``next-item``, ``ranking``, ``rating`` or ``classification``.
    loss : str
        Of the head; its first one if empty (:mod:`isthmus.model.heads`).
    additive : bool
        Score = transferred (as it was carried over, frozen) + task.
    classes : str
        What classification tells: the last named of an item's ``categories``, or the ``domain`` of any item.
    ids : bool
        Whether the sequence carrier learns an embedding of each item met, besides what its text says.
    epochs, learning_rate : float, optional
        By carrier and strategy if not given.
    negatives : int
        Items that each chosen one is told from (ranking; next items for the language carrier).
    persons : int
        Validation persons that choose the epoch, at most.
    seed : int
        For everything that draws.
    track : tuple of str
        Trackers; they need a folder for the work.
    training : mapping of str to object
        Other settings of the training loop (:class:`isthmus.train.settings.LoopSettings`), such as ``adversarial``.
    sizes : mapping of str to object
        Settings of the strategy (:class:`isthmus.model.strategies.StrategySettings`), such as ``rank``.

    Raises
    ------
    InputError
        A tracker, a number of epochs or a learning rate that makes no sense.
    """

    target: str
    strategy: str = "full"
    head: str = "next-item"
    loss: str = ""
    additive: bool = False
    classes: str = "categories"
    ids: bool = True
    epochs: float | None = None
    learning_rate: float | None = None
    negatives: int = 16
    persons: int = 1000
    seed: int = 0
    track: tuple[str, ...] = ()
    training: Mapping[str, object] = field(default_factory=dict)
    sizes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop("sequence")
        if self.classes not in ("categories", "domain"):
            hint = nearest(self.classes, ["categories", "domain"])
            raise InputError(f"no classes '{self.classes}'{hint}", fix="take categories or domain")
        if self.negatives < 1 or self.persons < 1:
            raise InputError("negatives and persons make no sense", where="adapt", fix="take 1 or more")
        if self.additive and self.head == "classification":
            raise InputError(
                "no classes were carried over that could be added to", fix="take another head, or no --additive"
            )

    @property
    def hidden(self) -> str:
        """Column of the items that is not read, since the head is to tell it."""
        return "categories" if (self.head, self.classes) == ("classification", "categories") else ""

    def loop(self, carrier: str) -> LoopSettings:
        """Return the settings of the training loop for a carrier."""
        classes, wide = self.head == "classification", self.strategy in ("full", "top")
        usual = LoopSettings(
            epochs=EPOCHS[carrier, classes] if self.epochs is None else self.epochs,
            learning_rate=RATES[carrier, wide] if self.learning_rate is None else self.learning_rate,
            patience=PATIENCE[classes],
            seed=self.seed,
            track=self.track,
            name=f"adapt to {self.target}",
        )
        return usual.changed(self.training)


def adapt(
    start: str | Path,
    split: Split,
    settings: AdaptSettings,
    out: str | Path,
    *,
    features: Features | None = None,
    work: Path | None = None,
) -> Adapted:
    """Adapt the pre-trained model in folder ``start`` to a target, keep it in folder ``out``, and return it.

    ``out`` holds the pre-trained model once and what each target has of its own: adapting the same model to another
    target adds to it, to the same target replaces that. Training events teach, validation events choose the epoch.

    Parameters
    ----------
    start : str or Path
        What ``isthmus pretrain`` wrote, or a folder that models were adapted in before.
    split : Split
        Where the target is.
    settings : AdaptSettings
        How.
    out : str or Path
        Folder.
    features : Features, optional
        Text vectors of the items, if they were made before.
    work : Path, optional
        Folder for checkpoints and trackers: a killed run goes on from there.

    Returns
    -------
    Adapted
        The adapted model; its ``metrics`` say how good it was ``before`` and is ``after``, and what that took. Where
        the best epoch, which they give as ``reached``, is worse than before, it stays as it was: ``kept`` is then
        ``before``, and else ``adapted``.

    Raises
    ------
    InputError
        An unknown strategy, head, loss or domain; nothing to learn or to choose from.
    ArtefactError
        ``start`` is no pre-trained model, or one of another format version.
    """
    from isthmus.transfer.strategies import StrategySettings, prepare, trained

    strategy = replace(StrategySettings(settings.strategy, seed=settings.seed), **settings.sizes)  # type: ignore[arg-type]
    source = backbone_of(Path(start))
    card = read_card(source)
    check_head(settings)
    require_room(Path(out), source, settings.target)
    scene = Scene.of(split, settings.target, card, features, hide=settings.hidden)
    lesson = _Lesson(split, scene, settings, str(card["carrier"]))
    model = lesson.model(source)
    prepared = prepare(model, strategy, name=settings.target)
    adapted = lesson.adapted(model, source)
    headed, course = _train(lesson, adapted, work)
    log = course.log
    row = trained(prepared, log)
    exam, total = lesson.exam, prepared.total + sum(part.numel() for part in headed.head.parameters())
    adapted = Adapted(headed.carrier.eval(), headed.head.eval(), scene, old=headed.old, known=adapted.known)
    adapted.metrics = {
        **row,
        "trainable": log.trainable,
        "total": total,
        "share": log.trainable / total,
        "carrier": str(card["carrier"]),
        "head": settings.head,
        "loss": headed.head.loss_name,
        "additive": settings.additive,
        "metric": exam.metric,
        "before": exam.said(course.before),
        "after": exam.said(max(course.before, log.best)),
        "reached": exam.said(log.best),
        "kept": "before" if course.worse else "adapted",
        "steps": 0 if course.worse else log.best_step,
    }
    keep(
        adapted,
        Path(out),
        source,
        {"corpus": split.corpus.fingerprint, "hidden": settings.hidden, "settings": asdict(settings)},
    )
    return adapted


def check_head(settings: AdaptSettings) -> None:
    """Raise an InputError for an unknown head or loss."""
    from isthmus.model.heads import HeadSettings, make_head

    make_head(settings.head, settings.loss, settings=HeadSettings(1, labels=("a", "b")))


class _Lesson:
    """What there is to learn in a target, for one carrier and head."""

    def __init__(self, split: Split, scene: Scene, settings: AdaptSettings, carrier: str) -> None:
        self.scene, self.settings, self.carrier = scene, settings, carrier
        self.classes = Classes.of(scene, settings.classes, settings.seed) if settings.head == "classification" else None
        self.exam: Exam = exam_of(split, scene, settings.head, settings.persons, self.classes)
        self.data = _rated(split, scene) if settings.head == "rating" else _learned(split, scene)
        if not self.data.in_target[self.data.histories.items].any() and self.classes is None:
            what = "event with a value" if settings.head == "rating" else "event"
            raise InputError(
                f"no training {what} in domain '{scene.domain}'",
                where=split.corpus.name,
                fix="cut later, or use the pre-trained model as it is with isthmus fit --from",
            )
        self.known: Indices = np.zeros(0, np.int32)
        self.material: Material | None = None

    def model(self, source: Path) -> PreTrainedModel:
        """Return the pre-trained model with room for the names, and the ids, of the target."""
        import torch

        model = load(source)
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            if self.carrier == "language":
                return model
            if self.classes is not None:
                return model.grown(self.scene.places, 0)
            from isthmus.train.sequences import Material

            self.material = Material.about(self.data, self.scene.places, self.scene.vectors)
            met = self.material.met if self.settings.ids else self.material.met[:0]
            self.known = self.material.rows[met]
            return model.grown(self.scene.places, met.size)

    def adapted(self, model: PreTrainedModel, source: Path) -> Adapted:
        """Return the model with a new head, and with ``additive`` the carrier as it was."""
        settings = self.settings
        dim = int(model.dim if self.carrier == "language" else model.config.dim)
        labels = () if self.classes is None else self.classes.names
        head = build_head(settings.head, settings.loss, dim, labels=labels, additive=settings.additive)
        if settings.head == "rating":
            _learn_scale(head, self.data.histories.weights)
        old = load(source) if settings.additive else None
        return Adapted(model, head, self.scene, old=old, known=self.known)

    def batches(self, adapted: Adapted) -> Batches:
        """Return what is learned from, and show sequence models the items."""
        from isthmus.transfer.adapt_heads import HeadBatching, ItemBatches, SequenceHeadBatches, TextHeadBatches

        settings = self.settings
        how = HeadBatching(settings.head, SIZES[self.carrier], settings.negatives, seed=settings.seed)
        reader = LanguageReading(adapted.carrier, self.scene).reader if self.carrier == "language" else None
        found: object
        if self.classes is not None:
            found = ItemBatches(*self.classes.taught, replace(how, size=min(how.size, 256)), reader)
        elif reader is not None:
            found = TextHeadBatches(reader, self.data.learn_from(True), self.data.in_target, how)
        else:
            material = cast("Material", self.material)
            found = SequenceHeadBatches(material, how, adapted.carrier.config.length)
        self.show(adapted)
        return cast("Batches", found)

    def show(self, adapted: Adapted) -> None:
        """Let sequence models attend to the items that are learned from."""
        if self.carrier == "language":
            return
        none, material, scene = np.zeros(0, np.int32), self.material, self.scene
        if material is None:
            adapted.carrier.attend(scene.vectors, scene.places, none)
            return
        known = np.searchsorted(material.rows, self.known).astype(np.int32)
        adapted.carrier.attend(material.vectors, material.places, known)
        if adapted.old is not None:
            adapted.old.attend(material.vectors, material.places, none)


@dataclass(frozen=True)
class _Course:
    """What the metric was before training, higher being better, and what came of it."""

    before: float
    log: LoopLog

    @property
    def worse(self) -> bool:
        """Whether the best epoch is worse than none."""
        return self.log.best < self.before


def _train(lesson: _Lesson, adapted: Adapted, work: Path | None) -> tuple[Headed, _Course]:
    """Train, and return the model and how that went; where it got worse, the model is as it was."""
    from isthmus.train.languages import loop_precision
    from isthmus.train.loop import train
    from isthmus.train.weights import learned, put
    from isthmus.transfer.adapt_heads import Headed

    batches, exam, domain = lesson.batches(adapted), lesson.exam, lesson.scene.domain
    headed = Headed(adapted.carrier, adapted.head, adapted.old)
    watch = _watcher(lesson, adapted)
    start, before = learned(headed), watch(headed.eval())
    logger.info("%s: %s %.4f before", domain, exam.metric, exam.said(before))
    loop = lesson.settings.loop(lesson.carrier)
    loop = replace(loop, precision=str(lesson.settings.training.get("precision", loop_precision("auto"))))
    course = _Course(before, train(headed, batches, loop, folder=work, watch=watch))
    if course.worse:
        put(headed, start)
        reached = exam.said(course.log.best)
        logger.warning("%s: training made it worse (%s %.4f), so it stays as it was", domain, exam.metric, reached)
    return headed, course


def _watcher(lesson: _Lesson, adapted: Adapted) -> Callable[[Headed], float]:
    def watch(model: Headed) -> float:
        now = Adapted(model.carrier, model.head, lesson.scene, old=model.old, known=adapted.known)
        found = lesson.exam.measure(now)
        lesson.show(adapted)
        return found

    return watch


def _learn_scale(head: Head, values: Floats) -> None:
    """Take the scale of ratings from those that are learned from."""
    import torch

    ratings = torch.from_numpy(values[np.isfinite(values)])
    for part in (head, *head.children()):
        if hasattr(part, "learn_scale"):
            part.learn_scale(ratings)


def _learned(split: Split, scene: Scene) -> TrainingData:
    return training_data(split, VALID, scene.domain, Features(places=scene.places))


def _rated(split: Split, scene: Scene) -> TrainingData:
    """Return the training data with the values of events in the target in place of weights, NaN for none."""
    events = rated(split, scene.domain).with_columns(weight=pl.col("value").cast(pl.Float32).fill_null(float("nan")))
    data = _learned(Split(split.corpus, events, split.card), scene)
    if not np.isfinite(data.histories.weights).any():
        raise InputError(
            f"no training event in domain '{scene.domain}' has a value",
            where=split.corpus.name,
            fix="import ratings as the column value, or take another head",
        )
    return data
