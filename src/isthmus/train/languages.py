"""Learning a language model from histories and texts, reading items with it, and keeping it as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from isthmus.data.paraphrase import Paraphraser
from isthmus.data.sequences import Histories
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import Precision, has_bf16
from isthmus.errors import ArtefactError, InputError, nearest
from isthmus.model.base import Places, State, TrainingData
from isthmus.model.language import LanguageModel
from isthmus.model.language_config import LanguageConfig
from isthmus.model.language_encoder import LanguageEncoder
from isthmus.model.reading import Reader, ReadingSettings
from isthmus.model.strategies import StrategySettings, plain, prepare
from isthmus.train.loop import LoopSettings, train
from isthmus.train.pairs import ContrastivePairs, Kind, PairSettings, hard_negatives
from isthmus.train.paraphrases import ParaphrasedTexts, word_edits
from isthmus.train.run import Batches
from isthmus.train.settings import AIDS
from isthmus.train.texts import CausalTexts, LabelledTexts, MaskedTexts, Masking, Mixed
from isthmus.types import Bools, Floats, Indices, Ints

if TYPE_CHECKING:
    from isthmus.train.language_carrier import LanguageCarrier

#: Objectives by name, and the kind of pairs of those that contrast.
PAIRS: Final[dict[str, Kind]] = {
    "contrastive-next": "next",
    "contrastive-together": "together",
    "contrastive-views": "views",
}
#: An item's text and the same in other words.
PARAPHRASE: Final = "contrastive-paraphrase"
OBJECTIVES: Final = (*PAIRS, PARAPHRASE, "mlm", "clm", "classify")
#: An item's text is one column here, made before.
_PLAIN: Final = Template(parts=("title",))
#: Told in place of the title of an item without text.
_NAMELESS: Final = "item"
_CONFIG: Final = "config.json"


def check_weights(objectives: Mapping[str, float]) -> None:
    """Raise an InputError for an objective that is unknown or has no weight above 0, or if there is none."""
    for name, weight in objectives.items():
        if name not in OBJECTIVES:
            raise InputError(f"no objective '{name}'{nearest(name, list(OBJECTIVES))}", fix=f"take {listed()}")
        if not weight > 0:
            raise InputError(f"objective {name} has weight {weight}", fix="give a weight above 0, or leave it out")
    if not objectives:
        raise InputError("no objective", where="pre-training", fix=f"take {listed()}")


def listed() -> str:
    """Return the names of the objectives in a sentence."""
    return f"one or more of {', '.join(OBJECTIVES)}"


def start_model(start: str | None, seed: int = 0) -> LanguageModel:
    """Return the model to start from: a folder that :class:`LanguageModel` wrote, any base model, or the bundled one.

    ``seed`` decides the first values of parts that the base model has not.

    Raises
    ------
    NotFoundError
        No such model.
    ArtefactError
        It cannot be read.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if start and _is_ours(Path(start)):
            return LanguageModel.from_pretrained(start)
        return LanguageModel.from_encoder(start or None)


def _is_ours(folder: Path) -> bool:
    config = folder / _CONFIG
    return config.is_file() and f'"{LanguageConfig.model_type}"' in config.read_text(encoding="utf-8")


def reader_of(model: LanguageModel, texts: Sequence[str], places: Places) -> Reader:
    """Return what reads items and people: an item inside a history is told by the start of its text.

    Parameters
    ----------
    model : LanguageModel
        With its tokeniser.
    texts : sequence of str
        Text of each item, N; empty for none.
    places : Places
        Domain and platform of each item.
    """
    if model.tokenizer is None:
        raise InputError("the model has no tokeniser", where="language carrier", fix="save the tokeniser beside it")
    table = pl.DataFrame(
        {
            "platform": np.array(places.platforms, dtype=object)[places.platform].tolist(),
            "item": [_NAMELESS] * len(texts),
            "domain": np.array(places.domains, dtype=object)[places.domain].tolist(),
            "title": [text or None for text in texts],
        },
        schema=dict.fromkeys(("platform", "item", "domain", "title"), pl.String),
    )
    said = model.config
    longest = int(getattr(said.backbone, "max_position_embeddings", said.max_tokens_person))
    lengths = (min(said.max_tokens_item, longest), min(said.max_tokens_person, longest))
    return Reader(model.tokenizer, table, ReadingSettings(*lengths, whole=True), _PLAIN)


def read_items(model: LanguageModel, texts: Sequence[str], *, precision: str = "auto", keep: bool = False) -> Floats:
    """Return one vector of length 1 a text, (N, D) float32; zeros for an empty one. Each text is read once.

    Parameters
    ----------
    model : LanguageModel
        Reads.
    texts : sequence of str
        Any number.
    precision : {"auto", "float32", "bfloat16"}
        See :class:`~isthmus.model.language_encoder.LanguageEncoder`.
    keep : bool
        Whether vectors go into, and come from, the cache on disk: for a model that stays as it is.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"precision '{precision}'", where="language carrier", fix="take auto, float32 or bfloat16")
    distinct, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
    names = [str(number) for number in range(distinct.size)]
    table = pl.DataFrame({"platform": [""] * distinct.size, "item": names, "title": distinct.tolist()})
    encoder = LanguageEncoder(model, template=_PLAIN, precision=cast("Precision", precision))
    matrix: Floats = encode_items(table, encoder, cache=keep).matrix[place]
    return matrix


@dataclass(frozen=True)
class Lesson:
    """What a language model may learn from.

    Parameters
    ----------
    reader : Reader
        Reads its items and people.
    histories : Histories
        What people did.
    predict : bool array (N,)
        Items that pairs may have on the right: the domains that are learned.
    texts : bool array (N,)
        Items whose texts are read for ``contrastive-paraphrase``, ``mlm``, ``clm`` and ``classify``; they need no
        events.
    labels : dict of str to (int64 array (N,), list of str)
        Class number of each item (-100 for none) and class names, by field.
    hard : int32 array (N, k), optional
        Hard negatives of each item.
    paraphraser : Paraphraser, optional
        Says texts in other words; :func:`isthmus.train.paraphrases.word_edits` of the texts read if not given.
    """

    reader: Reader
    histories: Histories
    predict: Bools
    texts: Bools
    labels: Mapping[str, tuple[Ints, list[str]]] = field(default_factory=dict)
    hard: Indices | None = None
    paraphraser: Paraphraser | None = None

    def batches(self, model: LanguageModel, objectives: Mapping[str, float], settings: PairSettings) -> Batches:
        """Return batches of all objectives, and give ``model`` the heads they need.

        Raises
        ------
        InputError
            An objective that does not fit the model, or that there is nothing to learn it from.
        """
        check_weights(objectives)
        heads = ["contrastive" if name in (*PAIRS, PARAPHRASE) else name for name in objectives]
        labels = {name: classes for name, (_, classes) in self.labels.items()} if "classify" in heads else {}
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            model.prepare(heads, labels)
        made = [(self._batches(name, settings), weight) for name, weight in objectives.items()]
        return cast("Batches", Mixed(made))

    def _batches(self, objective: str, settings: PairSettings) -> Batches:
        if objective in PAIRS:
            found: object = ContrastivePairs(
                PAIRS[objective], self.reader, self.histories, settings, hard=self.hard, predict=self.predict
            )
            return cast("Batches", found)
        rows = np.flatnonzero(self.texts)
        if objective == PARAPHRASE:
            found = ParaphrasedTexts(self.reader, rows, self.paraphraser or self._word_edits(rows), settings)
            return cast("Batches", found)
        tokens, groups = self.reader.items.take(rows), self.reader.places.domain[rows].astype(np.int64)
        if objective == "mlm":
            found = MaskedTexts(tokens, Masking.of(self.reader.tokenizer), settings, groups)
        elif objective == "clm":
            found = CausalTexts(tokens, settings, groups)
        else:
            numbers = {name: codes[rows] for name, (codes, _) in self.labels.items()}
            found = LabelledTexts(tokens, numbers, settings, groups)
        return cast("Batches", found)

    def _word_edits(self, rows: Ints) -> Paraphraser:
        texts = self.reader.template.render(self.reader.table).to_list()
        return word_edits([texts[row] for row in rows.tolist()])


def hard_of(model: LanguageModel, reader: Reader, histories: Histories, k: int, *, keep: bool) -> Indices | None:
    """Return the hard negatives of each item as ``model`` reads them now, (N, k); None if ``k`` is 0.

    Only items with an event have and are any: the others would cost time and are met by nobody.
    """
    if k <= 0:
        return None
    met = np.unique(histories.items).astype(np.int32)
    texts = reader.table["title"].fill_null("").to_list()
    vectors = read_items(model, [texts[item] for item in met], keep=keep)
    near = hard_negatives(vectors, reader.places.domain[met], histories.within(met), k=k)
    table = np.full((len(texts), k), -1, np.int32)
    table[met] = np.where(near >= 0, met[near], -1)
    return table


def learn_language(
    method: LanguageCarrier, data: TrainingData, seed: int
) -> tuple[LanguageModel, NDArray[np.float16] | None]:
    """Return the model that ``method`` starts from, trained on pairs of what people did, and the items' vectors.

    The vectors are those of the best epoch, None without the hook ``watch``.

    Raises
    ------
    InputError
        There is no pair to learn from.
    """
    model = start_model(str(method.settings["start"]), seed)
    reader = reader_of(model, method.texts, method.places)
    histories = data.learn_from(bool(method.settings["sources"]))
    everything = np.ones(data.n_items, dtype=bool)
    hard = hard_of(model, reader, histories, int(method.number("hard")), keep=not model.config.strategy)
    lesson = Lesson(reader, histories, everything, everything, hard=hard)
    pairs = PairSettings(batch_size=int(method.number("batch")), seed=seed)
    batches = lesson.batches(model, {"contrastive-next": 1.0, "contrastive-together": 1.0}, pairs)
    prepare(model, StrategySettings(str(method.settings["strategy"]), seed=seed))
    exact = method.settings["precision"] == "float32"
    loop = LoopSettings(
        epochs=method.number("epochs"),
        learning_rate=method.number("learning_rate"),
        precision=loop_precision("float32" if exact else "auto"),
        seed=seed,
        patience=1 if method.hooks.watch else 0,
        name="language",
    ).changed({name: method.settings[name] for name in AIDS})
    watch = _Watch(method) if method.hooks.watch else None
    method.log = train(model, batches, loop, watch=watch)
    if watch is not None:
        method.settings["epochs"] = min(method.log.best_step / len(batches), method.number("epochs"))
    trained: LanguageModel = plain(model)
    return trained, watch.vectors if watch else None


class _Watch:
    """Judges the model while it learns by the method, as if it were done; keeps the vectors of the best epoch."""

    def __init__(self, method: LanguageCarrier) -> None:
        self.method, self.best = method, -np.inf
        self.vectors: NDArray[np.float16] | None = None

    def __call__(self, model: LanguageModel) -> float:
        self.method.show(model)
        found = self.method.hooks.watch(self.method) if self.method.hooks.watch else 0.0
        if found > self.best:
            self.best, self.vectors = found, self.method.vectors
        self.method.show(None)
        return found


def loop_precision(wanted: str) -> str:
    """Return the precision of the training loop: ``auto`` takes bf16 where the processor computes in it.

    Examples
    --------
    >>> loop_precision("float32")
    'float32'
    """
    if wanted != "auto":
        return wanted
    return "bf16" if has_bf16("cuda" if torch.cuda.is_available() else "cpu") else "float32"


def pack(model: LanguageModel) -> State:
    """Return a model as plain arrays: weights under ``weight.NAME``, its other files as bytes under ``file.NAME``."""
    packed: State = {}
    with TemporaryDirectory() as name:
        model.save_pretrained(name)
        for path in sorted(Path(name).iterdir()):
            if path.suffix == ".safetensors":
                packed |= {f"weight.{key}": array for key, array in load_file(path).items()}
            elif path.is_file() and not path.name.endswith(".index.json"):
                packed[f"file.{path.name}"] = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    return packed


def unpack(packed: Mapping[str, np.ndarray]) -> LanguageModel:
    """Return the model that :func:`pack` made arrays of.

    Raises
    ------
    ArtefactError
        Something is missing or damaged.
    """
    if f"file.{_CONFIG}" not in packed:
        raise ArtefactError("the language model is missing", where="method language", fix="fit it again")
    with TemporaryDirectory() as name:
        weights = {}
        for key, array in packed.items():
            kind, _, rest = key.partition(".")
            if kind == "weight":
                weights[rest] = np.ascontiguousarray(array)
            elif kind == "file" and Path(rest).name == rest:
                (Path(name) / rest).write_bytes(np.ascontiguousarray(array).tobytes())
        save_file(weights, Path(name) / "model.safetensors", metadata={"format": "pt"})
        return LanguageModel.from_pretrained(name)
