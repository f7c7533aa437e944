"""Pre-training of the sequence carrier: one model over the events of several domains, platforms and data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from isthmus.data.augment import Augment, Operation
from isthmus.encode.static import open_encoder
from isthmus.encode.store import encode_items
from isthmus.encode.text import TextEncoder, TextSettings
from isthmus.errors import InputError, nearest
from isthmus.files import Json, require_free
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.whitened import strongest_directions, whitened
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import VALID, Split
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import training_data
from isthmus.train.settings import LoopSettings
from isthmus.train.tune import validate
from isthmus.transfer.pretrained import read_card, write_pretrained
from isthmus.transfer.zero import is_unseen
from isthmus.types import Floats

if TYPE_CHECKING:
    from isthmus.model.sequence import SequenceModel
    from isthmus.train.sequences import Material

OBJECTIVES: Final = ("next", "views")


@dataclass(frozen=True)
class SequencePretraining:
    """How a sequence model is pre-trained.

    Parameters
    ----------
    domains : tuple of str
        Domains that are learned from; all if empty.
    objectives : mapping of str to float
        Weights: ``next`` (next item, over the whole catalogue of its domain) and ``views`` (contrast of two views of
        one person).
    augment : tuple of str
        Operations that make the views, out of :data:`isthmus.data.augment.OPERATIONS`; ``substitute`` and ``insert``
        put in items of like company, or of like texts (:func:`isthmus.train.views.similar_table`).
    epochs : float
        Times that all events are gone through.
    learning_rate, dropout : float
        Of the training.
    dim, layers, experts : int
        Sizes of the model.
    batch : int
        Events of a batch.
    alpha : float
        Temperature sampling: a domain with ``n`` events counts as ``n ** alpha``, against the see-saw between domains.
    keep_adaptor : bool
        Whether the adaptor stays the projection on the strongest directions of the texts that it begins as.
    shrink : float
        Of the whitening of each domain's text vectors.
    persons : int
        Validation persons of each domain that choose the epoch; 0 keeps the last one.
    model : str, optional
        Language model that reads the items; the bundled one by default.
    seed : int
        For everything that draws.
    track : tuple of str
        Trackers.
    training : mapping of str to object
        Other settings of the training loop (:class:`isthmus.train.settings.LoopSettings`), such as ``adversarial``.

    Raises
    ------
    InputError
        An unknown objective or operation, or no weight at all; a setting of training that makes no sense.
    """

    domains: tuple[str, ...] = ()
    objectives: Mapping[str, float] | None = None
    augment: tuple[str, ...] = ("crop", "mask", "reorder")
    epochs: float = 6.0
    learning_rate: float = 4e-3
    dropout: float = 0.2
    dim: int = 64
    layers: int = 2
    experts: int = 4
    batch: int = 512
    alpha: float = 0.5
    keep_adaptor: bool = False
    shrink: float = 0.1
    persons: int = 300
    model: str | None = None
    seed: int = 0
    track: tuple[str, ...] = ()
    training: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop()
        for name, weight in self.weights.items():
            if name not in OBJECTIVES or weight < 0:
                hint = nearest(name, list(OBJECTIVES))
                raise InputError(f"objective {name} = {weight}{hint}", fix=f"weights of {', '.join(OBJECTIVES)}")
        if not self.weights.get("next"):
            raise InputError("the sequence carrier needs the objective next", fix="give it a weight above 0")
        Augment(cast("tuple[Operation, ...]", self.augment))

    def loop(self) -> LoopSettings:
        """Return the settings of the training loop."""
        usual = LoopSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            precision="bf16",
            seed=self.seed,
            track=self.track,
            patience=max(3, round(self.epochs / 2)) if self.persons else 0,
            name="pretrain",
        )
        return usual.changed(self.training)

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each objective."""
        return {"next": 1.0} if self.objectives is None else self.objectives


def pretrain_sequence(
    splits: Sequence[Split], out: Path, settings: SequencePretraining | None = None, *, work: Path | None = None
) -> Json:
    """Pre-train an inductive sequence model on the training parts of ``splits`` and write it to folder ``out``.

    Parameters
    ----------
    splits : sequence of Split
        Where the events come from; only training events are learned from, validation events choose the epoch.
    out : Path
        Folder for the model.
    settings : SequencePretraining, optional
        How.
    work : Path, optional
        Folder for checkpoints: a killed run goes on from there.

    Returns
    -------
    dict
        What the model card says: domains, objectives, counts, fingerprints, seconds, validation NDCG@10.

    Raises
    ------
    InputError
        A domain that no split has, or nothing to learn from.
    """
    from isthmus.train.batches import BatchSettings
    from isthmus.train.sequences import learn_mixture
    from isthmus.train.views import Views

    settings = settings or SequencePretraining()
    require_free(Path(out))
    _require(splits, settings.domains)
    used = [source for split in splits for source in Source.all_of(split, settings)]
    if not used:
        raise InputError("no training event in these domains", fix="name more domains or splits")
    model = _new(used, settings)
    augment = Augment(cast("tuple[Operation, ...]", settings.augment))
    views = Views(augment) if model.config.views > 0 else None
    batches = BatchSettings(events=settings.batch, views=views, alpha=settings.alpha, seed=settings.seed)
    watch = _judges(used, settings) if settings.persons else None
    materials = [source.material for source in used]
    log = learn_mixture(model, materials, batches, settings.loop(), folder=work, watch=watch)
    model.requires_grad_(True)
    said: Json = {
        "carrier": "sequence",
        "objectives": dict(settings.weights),
        "settings": {**asdict(settings), "objectives": dict(settings.weights)},
        "domains": [{"corpus": s.split.corpus.name, "domain": s.domain} for s in used],
        "data": [{"corpus": s.corpus.name, "fingerprint": s.corpus.fingerprint} for s in splits],
        "events": sum(source.material.histories.items.size for source in used),
        "items": sum(source.material.rows.size for source in used),
        "encoder": model.config.encoder,
        "log": log.to_json(),
    }
    write_pretrained(model, out, said)
    return said


def _new(sources: Sequence[Source], settings: SequencePretraining) -> SequenceModel:
    """Return the model to train."""
    from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel

    platforms = {name for source in sources for name in source.platforms}
    vectors = sources[0].material.vectors
    config = SequenceConfig(
        width=0 if vectors is None else vectors.shape[1],
        dim=settings.dim,
        layers=settings.layers,
        experts=settings.experts,
        dropout=settings.dropout,
        domains=[UNKNOWN, *sorted({source.domain for source in sources})],
        platforms=[UNKNOWN, *sorted(platforms)],
        shrink=settings.shrink,
        views=float(settings.weights.get("views", 0.0)) / float(settings.weights["next"]),
        encoder=sources[0].encoder,
    )
    model: SequenceModel = SequenceModel.seeded(config, settings.seed).begin_with(_directions(sources, settings.dim))
    if model.adaptor is not None:
        model.adaptor.requires_grad_(not settings.keep_adaptor)
    return model


@dataclass(frozen=True)
class Source:
    """One domain of one split to pre-train on.

    Parameters
    ----------
    split : Split
        Where it comes from.
    data : TrainingData
        The split's training events, and the domain as target.
    material : Material
        What leads to the domain.
    encoder : str
        Fingerprint of what read the items.
    domain : str
        The domain.
    """

    split: Split
    data: TrainingData
    material: Material
    encoder: str
    domain: str

    @property
    def platforms(self) -> set[str]:
        """Platforms with an event that is learned from."""
        places = self.material.places
        return {places.platforms[place] for place in np.unique(places.platform[self.material.met])}

    @classmethod
    def all_of(cls, split: Split, settings: SequencePretraining) -> list[Source]:
        """Return a source for each domain of ``settings`` that the split has training events in."""
        from isthmus.train.sequences import Material

        items, reader = split.corpus.items, open_encoder(settings.model)
        features = Features(None, encode_items(items, reader).matrix, Places.of(items))
        places, white = Places.of(items), whitened(features, settings.shrink)
        wanted = [domain for domain in split.corpus.domains if domain in (settings.domains or split.corpus.domains)]
        allowed = items["domain"].is_in(wanted).to_numpy()
        found = []
        for domain in wanted:
            data = training_data(split, VALID, domain, features)
            data = replace(data, histories=data.histories.keep(allowed[data.histories.items]))
            material = Material.about(data, places, white)
            if material.histories.items.size:
                found.append(cls(split, data, material, reader.fingerprint, domain))
        return found


def require_encoder(start: str | Path, model: str | None) -> None:
    """Refuse a pre-trained sequence model where another text encoder reads the items than when it learned.

    Parameters
    ----------
    start : str or Path
        Folder of a pre-trained model; a language model reads the items itself.
    model : str or None
        What reads the items now, None for the bundled encoder. Its precision does not count.

    Raises
    ------
    InputError
        It is another one.
    """
    card = read_card(Path(start))
    known = card.get("encoder")
    if card["carrier"] != "sequence" or not known or known in _fingerprints(model):
        return
    said = card.get("settings")
    named = said.get("model") if isinstance(said, dict) else None
    fix = f"give --model {named}" if named else "leave --model out"
    raise InputError(
        f"was pre-trained on what another text encoder reads than {model or 'the bundled one'}",
        where=start,
        fix="pre-train it again, for the encoder was changed since" if named == model else fix,
    )


def _fingerprints(model: str | None) -> set[str]:
    """Return the fingerprints of an encoder: it reads the same in either precision but for rounding."""
    encoder = open_encoder(model)
    if not isinstance(encoder, TextEncoder):
        return {encoder.fingerprint}
    settings = [TextSettings(precision="float32"), TextSettings(precision="bfloat16")]
    return {TextEncoder(model, settings=how).fingerprint for how in settings}


def _directions(sources: Sequence[Source], dim: int) -> Floats:
    """Return what all sources' items together vary in most, (D, dim)."""
    every = [
        source.data.features.vectors[source.data.target]
        for source in sources
        if source.data.features.vectors is not None
    ]
    codes = np.concatenate([np.full(len(part), place, np.int32) for place, part in enumerate(every)])
    places = Places(codes, np.zeros_like(codes), tuple(source.domain for source in sources), ("",))
    features = Features(None, np.concatenate(every), places)
    return strongest_directions(features, np.arange(codes.size, dtype=np.int32), dim)


def _require(splits: Sequence[Split], domains: Sequence[str]) -> None:
    known = sorted({domain for split in splits for domain in split.corpus.domains})
    for domain in domains:
        if domain not in known:
            raise InputError(f"no domain '{domain}'{nearest(domain, known)}", fix=f"domains: {', '.join(known)}")


def _judges(sources: Sequence[Source], settings: SequencePretraining) -> Callable[[SequenceModel], float]:
    """Return what gives the mean validation NDCG@10 over all source domains that have validation events.

    Persons are shown with their events in the domains that are learned from, and no others.
    """
    tasks = []
    for source in sources:
        if not is_unseen(source.split, source.domain):
            task = build_task(source.split, VALID, source.domain, most=settings.persons)
            domains = source.split.corpus.items["domain"]
            known = domains.is_in(settings.domains or source.split.corpus.domains).to_numpy()
            tasks.append((source, replace(task, histories=task.histories.keep(known[task.histories.items]))))

    def watch(model: SequenceModel) -> float:
        catalogues, group = model.catalogues, model.group
        found = []
        for source, task in tasks:
            found.append(validate(SequenceCarrier.wrap(model, source.data, settings.shrink), task))
        model.catalogues, model.group = catalogues, group
        return float(np.mean(found)) if found else 0.0

    return watch
