"""Pre-training of the language carrier on several data sets, and its adaptation to a target domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from isthmus.data.paraphrase import Paraphraser
from isthmus.data.sequences import Histories
from isthmus.encode.template import Template
from isthmus.errors import InputError, nearest
from isthmus.files import Json
from isthmus.model.base import Features, Places
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train.fit import training_data
from isthmus.transfer.pretrained import write_pretrained

if TYPE_CHECKING:
    from isthmus.model.language import LanguageModel
    from isthmus.train.languages import Lesson
    from isthmus.types import Bools, Ints

#: Weights unless others are given.
USUAL: Final[dict[str, float]] = {"contrastive-next": 1.0, "contrastive-together": 1.0}
#: Texts that a category needs to be learned.
LEAST: Final = 20


@dataclass(frozen=True)
class LanguagePretraining:
    """How a language model is pre-trained.

    Parameters
    ----------
    domains : tuple of str
        Domains whose events are learned from; all if empty.
    unlabelled : tuple of str
        Further domains of which only the texts are read, by ``contrastive-paraphrase``, ``mlm``, ``clm`` and
        ``classify``.
    objectives : mapping of str to float
        Weights of ``contrastive-next`` (what somebody did, and the next item), ``contrastive-together`` (two items of
        one person), ``contrastive-views`` (two parts of what somebody did), ``contrastive-paraphrase`` (an item's text
        and the same in other words), ``mlm``, ``clm`` and ``classify`` (domain, and category where there is one). Item
        texts count with or without events.
    start : str, optional
        Folder or name of the model to start from; the bundled one by default.
    epochs, steps : float, int
        How long; ``steps`` overrides ``epochs``.
    learning_rate : float
        The highest.
    temperature : float, optional
        Of the contrast; that of the model by default.
    alpha : float
        Temperature sampling: a domain with ``n`` pairs is drawn as often as ``n ** alpha`` says.
    batch : int
        Pairs, or texts, of each objective in a batch.
    hard : int
        Hard negatives of each item that are drawn from; 0 for none.
    strategy : str
        What of the model is trained (:mod:`isthmus.model.strategies`).
    precision : str
        "auto", "bf16" or "float32"; auto takes bf16 where the processor computes in it.
    final : bool
        Learn from validation events too: for a model whose settings are chosen.
    seed : int
        For everything that draws.
    track : tuple of str
        Trackers; they need a folder for the work.
    training : mapping of str to object
        Other settings of the training loop (:class:`isthmus.train.settings.LoopSettings`), such as ``adversarial``.
    paraphraser : Paraphraser, optional
        What says texts in other words, such as :class:`isthmus.data.paraphrase.BackTranslation`; words exchanged, left
        out and swapped by default (:func:`isthmus.train.paraphrases.word_edits`).
    """

    domains: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=lambda: dict(USUAL))
    start: str | None = None
    epochs: float = 1.0
    steps: int | None = None
    learning_rate: float = 2e-5
    temperature: float | None = None
    alpha: float = 0.5
    batch: int = 32
    hard: int = 4
    strategy: str = "full"
    precision: str = "auto"
    final: bool = False
    seed: int = 0
    track: tuple[str, ...] = ()
    training: Mapping[str, object] = field(default_factory=dict)
    paraphraser: Paraphraser | None = None

    def to_json(self) -> Json:
        """Return the settings for a model card; of a paraphraser its kind."""
        kind = None if self.paraphraser is None else type(self.paraphraser).__name__
        plain = asdict(replace(self, paraphraser=None))
        return {**plain, "objectives": dict(self.objectives), "training": dict(self.training), "paraphraser": kind}


def pretrain_language(
    splits: Sequence[Split], out: Path, settings: LanguagePretraining | None = None, *, work: Path | None = None
) -> Json:
    """Pre-train a language model on the training parts of ``splits`` and write it to folder ``out``.

    Each batch of pairs is of one domain; domains are drawn by temperature sampling.

    Parameters
    ----------
    splits : sequence of Split
        Where events and texts come from; only training events are learned from, and with ``final`` validation events.
    out : Path
        Folder for the model, written whole or not at all.
    settings : LanguagePretraining, optional
        How.
    work : Path, optional
        Folder for checkpoints: a killed run goes on from there.

    Returns
    -------
    dict
        What the model card says: domains, objectives, counts, fingerprints, the log of the training.

    Raises
    ------
    InputError
        A domain that no split has, an objective that does not fit, or nothing to learn from.
    """
    settings = settings or LanguagePretraining()
    require_domains(splits, (*settings.domains, *settings.unlabelled))
    return _learn(Texts.of(splits, settings), out, settings, None, work)


def adapt_language(
    start: str | Path,
    split: Split,
    target: str,
    out: Path,
    settings: LanguagePretraining | None = None,
    *,
    work: Path | None = None,
) -> Json:
    """Train a pre-trained language model on to predict the items of one domain, and write it to folder ``out``.

    The settings are those of pre-training; ``domains`` are those whose events may be told of a person, all if empty.
    What stands on the right of a pair is always of the target.

    Parameters
    ----------
    start : str or Path
        The pre-trained model.
    split : Split
        Where the target is.
    target : str
        The target domain.
    out, work : Path
        Folder for the model; folder for checkpoints.
    settings : LanguagePretraining, optional
        How; its ``strategy`` says what is trained, its ``start`` does not count.

    Returns
    -------
    dict
        What the model card says.

    Raises
    ------
    InputError
        No such domain, or nothing to learn from.
    """
    settings = settings or LanguagePretraining()
    split.corpus.require_domain(target)
    require_domains([split], (*settings.domains, *settings.unlabelled))
    chosen = replace(settings, start=str(start))
    return _learn(Texts.of([split], chosen), out, chosen, target, work)


@dataclass(frozen=True)
class Texts:
    """The items and events of several splits as if they were one.

    Parameters
    ----------
    splits : sequence of Split
        Where they come from.
    items : polars.DataFrame
        All items, those of each split after those of the one before.
    histories : Histories
        What people did in the domains that are learned; a person of two splits counts as two.
    learned, read : bool array (N,)
        Items of the domains whose events, and of those whose texts, are learned from.
    """

    splits: Sequence[Split]
    items: pl.DataFrame
    histories: Histories
    learned: Bools
    read: Bools

    @classmethod
    def of(cls, splits: Sequence[Split], settings: LanguagePretraining) -> Texts:
        """Return what may be learned from in the domains of ``settings``."""
        part = TEST if settings.final else VALID
        items = pl.concat([split.corpus.items for split in splits], how="diagonal")
        everything = settings.domains or tuple(items["domain"].unique())
        learned = items["domain"].is_in(everything).to_numpy()
        read = items["domain"].is_in((*everything, *settings.unlabelled)).to_numpy()
        found, first = [], 0
        for split in splits:
            known = training_data(split, part, split.corpus.domains[0], Features()).histories
            kept = known.keep(learned[first + known.items])
            found.append((kept.take(np.flatnonzero(kept.lengths > 0)), first))
            first += split.corpus.items.height
        return cls(splits, items, joined(found), learned, read)

    def lesson(self, model: LanguageModel, settings: LanguagePretraining, target: str | None) -> Lesson:
        """Return what ``model`` may learn; with ``target``, items of that domain only are predicted."""
        from isthmus.train.languages import PAIRS, Lesson, hard_of, reader_of

        reader = reader_of(model, Template().render(self.items).to_list(), Places.of(self.items))
        predict = self.learned if target is None else (self.items["domain"] == target).to_numpy()
        pairs = any(name in PAIRS for name in settings.objectives)
        keep = not model.config.strategy
        hard = hard_of(model, reader, self.histories, settings.hard if pairs else 0, keep=keep)
        labels = self.labels() if "classify" in settings.objectives else {}
        return Lesson(reader, self.histories, predict, self.read, labels, hard, settings.paraphraser)

    def labels(self) -> dict[str, tuple[Ints, list[str]]]:
        """Return class numbers and names of the fields with at least two classes: domain, category (the last named)."""
        from isthmus.train.texts import class_numbers

        named = {"domain": self.items["domain"].to_list()}
        if "categories" in self.items.columns:
            kind = self.items.schema["categories"]
            last = pl.col("categories").list.last() if isinstance(kind, pl.List) else pl.col("categories")
            named["category"] = self.items.select(last.cast(pl.String)).to_series().to_list()
        found = {
            name: class_numbers([word if used else None for word, used in zip(words, self.read, strict=True)], least=n)
            for (name, words), n in zip(named.items(), (1, LEAST), strict=False)
        }
        return {name: (numbers, classes) for name, (numbers, classes) in found.items() if len(classes) > 1}


def joined(parts: Sequence[tuple[Histories, int]]) -> Histories:
    """Return the histories of all parts, one after the other, with items counted on by the number beside each part.

    Examples
    --------
    >>> joined([(Histories.of([[0, 1]]), 0), (Histories.of([[0], [2]]), 5)]).items.tolist()
    [0, 1, 5, 7]
    """
    lengths = np.concatenate([part.lengths for part, _ in parts])
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.items + np.int32(first) for part, first in parts]).astype(np.int32),
        np.concatenate([part.weights for part, _ in parts]),
        np.concatenate([part.ts for part, _ in parts]),
        np.concatenate([part.events for part, _ in parts]),
    )


def require_domains(splits: Sequence[Split], domains: Sequence[str]) -> None:
    """Raise an InputError for a domain that none of the splits has."""
    known = sorted({domain for split in splits for domain in split.corpus.domains})
    for domain in domains:
        if domain not in known:
            raise InputError(f"no domain '{domain}'{nearest(domain, known)}", fix=f"domains: {', '.join(known)}")


def _learn(texts: Texts, out: Path, settings: LanguagePretraining, target: str | None, work: Path | None) -> Json:
    """Train, write the model to ``out``, and return its card."""
    from isthmus.model.strategies import StrategySettings, plain, prepare
    from isthmus.train.languages import check_weights, loop_precision, start_model
    from isthmus.train.loop import LoopSettings, train
    from isthmus.train.pairs import PairSettings

    check_weights(settings.objectives)
    model = start_model(settings.start, settings.seed)
    if settings.temperature is not None:
        model.config.pair_temperature = settings.temperature
    lesson = texts.lesson(model, settings, target)
    pairs = PairSettings(batch_size=settings.batch, alpha=settings.alpha, seed=settings.seed)
    batches = lesson.batches(model, settings.objectives, pairs)
    prepare(model, StrategySettings(settings.strategy, seed=settings.seed), name=target or "default")
    loop = LoopSettings(
        epochs=settings.epochs,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=0.1,
        precision=loop_precision(settings.precision),
        seed=settings.seed,
        track=settings.track,
        name="pretrain" if target is None else f"adapt to {target}",
    ).changed(settings.training)
    log = train(model, batches, loop, folder=work)
    plain(model)
    said: Json = {
        "carrier": "language",
        "objectives": dict(settings.objectives),
        "settings": settings.to_json(),
        "target": target,
        "domains": _domains(texts),
        "data": [{"corpus": s.corpus.name, "fingerprint": s.corpus.fingerprint} for s in texts.splits],
        "events": int(texts.histories.items.size),
        "items": int(texts.read.sum()),
        "encoder": str(model.config.about.get("base", "random weights")),
        "log": log.to_json(),
    }
    model.config.about = {**model.config.about, "data": [split.corpus.fingerprint for split in texts.splits]}
    write_pretrained(model, out, said)
    return said


def _domains(texts: Texts) -> list[Json]:
    """Return the domains that were learned from, each with its corpus."""
    learned = set(texts.items["domain"].filter(pl.Series(texts.learned)))
    return [
        {"corpus": split.corpus.name, "domain": domain}
        for split in texts.splits
        for domain in split.corpus.domains
        if domain in learned
    ]
