"""From a spec to lists in one call: corpus, split, vectors, model, report, lists; a finished step is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from isthmus import __version__
from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.data.sources.readers import files_of
from isthmus.data.spec import Spec, read_spec
from isthmus.encode.static import open_encoder
from isthmus.encode.store import encode_items
from isthmus.errors import ArtefactError, InputError
from isthmus.files import Json, read_json, sha256, write_json
from isthmus.log import logger
from isthmus.pipeline.frames import write_lists
from isthmus.pipeline.judging import evaluate
from isthmus.recommender import Recommender
from isthmus.recommender.store import version_of
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import FitSettings
from isthmus.train.methods import GROUND
from isthmus.types import PARTS, Protocol

STATE: Final = "run.json"


@dataclass(frozen=True)
class RunSettings:
    """What the steps after the import do.

    Parameters
    ----------
    protocol : {"time", "leave-last"}, optional
        Default: ``time``, or ``leave-last`` where a platform has an order and no dates.
    valid_share, test_share : float
        Shares of the events that choose and that measure; without test there is no report.
    targets : tuple of str
        Target domains; all if empty.
    methods : tuple of str
        Methods that take part.
    budget : float
        Seconds for tuning one target domain.
    seed : int
        For everything that draws.
    model : str, optional
        Language model that reads the items; the bundled one by default.
    k : int
        Length of the lists.
    """

    protocol: Protocol | None = None
    valid_share: float = 0.1
    test_share: float = 0.1
    targets: tuple[str, ...] = ()
    methods: tuple[str, ...] = GROUND
    budget: float = 180.0
    seed: int = 0
    model: str | None = None
    k: int = 10


@dataclass(frozen=True)
class Step:
    """One finished step.

    Parameters
    ----------
    name : str
        import, split, encode, fit, evaluate, recommend.
    said : str
        What came out, in a few words.
    seconds : float
        How long it took.
    kept : bool
        Whether it was found done.
    """

    name: str
    said: str
    seconds: float
    kept: bool = False


Tell = Callable[[Step], None]


def run(spec: Path, out: Path, settings: RunSettings | None = None, *, tell: Tell | None = None) -> list[Step]:
    """Go the whole way from raw logs to lists, and return the steps.

    ``out`` gets the folders ``corpus``, ``split``, ``model``, ``report`` and the file ``recs.parquet``. With a test
    part the model that is delivered learned from train and valid, is measured on test, and makes the lists. A run that
    was interrupted goes on where it stopped: a step whose inputs and settings are those of ``out/run.json`` is not
    done again.

    Parameters
    ----------
    spec : Path
        A ``SPEC.toml`` (docs/spec.md).
    out : Path
        Folder for everything.
    settings : RunSettings, optional
        What the steps do.
    tell : callable, optional
        Called with each step when it is done.

    Raises
    ------
    IsthmusError
        Whatever stops a step; what earlier steps wrote stays.
    """
    return _Run(Path(spec), Path(out), settings or RunSettings(), tell or (lambda _: None)).go()


class _Run:
    """A run's folder, what it knows of finished steps, and the artefacts as they come to be."""

    def __init__(self, spec: Path, out: Path, settings: RunSettings, tell: Tell) -> None:
        self.spec, self.out, self.settings, self.tell = spec, out, settings, tell
        self.steps: list[Step] = []
        self.state = self._known()

    def _known(self) -> Json:
        if self.out.exists() and not self.out.is_dir():
            raise InputError("is a file", where=self.out, fix="name a folder")
        if not (self.out / STATE).exists():
            return {}
        try:
            return read_json(self.out / STATE, what="run")
        except ArtefactError as error:
            logger.warning("%s; every step is done again", error)
            return {}

    def go(self) -> list[Step]:
        settings = self.settings
        self._step("import", self._import_key(), self.out / "corpus", self._import)
        corpus = Corpus.open(self.out / "corpus")
        protocol: Protocol = settings.protocol or ("leave-last" if corpus.order_only else "time")
        chosen = (protocol, settings.valid_share, settings.test_share)
        self._step("split", (corpus.fingerprint, *chosen), self.out / "split", lambda: self._split(corpus, protocol))
        split = Split.open(self.out / "split")
        fitted = (split.card, settings.targets, settings.methods, settings.budget, settings.seed, settings.model)
        if "text" in settings.methods and not self._is_done("fit", fitted, self.out / "model"):
            self._timed("encode", lambda: _encode(corpus, settings.model))
        self._step("fit", fitted, self.out / "model", lambda: self._fit(split))
        model, made = _Later(self.out / "model"), sha256(self.out / "model" / "model.json")
        if (split.events["part"] == TEST).any():
            self._step("evaluate", made, self.out / "report", lambda: self._evaluate(model.get(), split))
        elif (self.out / "report" / "report.json").exists():
            shutil.rmtree(self.out / "report")
        lists = self.out / "recs.parquet"
        self._step("recommend", (made, settings.k), lists, lambda: self._recommend(model.get(), lists))
        return self.steps

    def _is_done(self, name: str, inputs: object, made: Path) -> bool:
        """Return whether ``made`` is there and was made from the same inputs."""
        return made.exists() and self.state.get(name) == _key(inputs)

    def _step(self, name: str, inputs: object, made: Path, work: Callable[[], str]) -> None:
        """Do ``work`` unless it is done, and note that it is."""
        if self._is_done(name, inputs, made):
            self._done(Step(name, "done before", 0.0, kept=True))
            return
        if self.state.pop(name, None):
            write_json(self.out / STATE, self.state)
        self._timed(name, work)
        self.state[name] = _key(inputs)
        write_json(self.out / STATE, self.state)

    def _timed(self, name: str, work: Callable[[], str]) -> None:
        start = perf_counter()
        said = work()
        self._done(Step(name, said, round(perf_counter() - start, 2)))

    def _done(self, step: Step) -> None:
        self.steps.append(step)
        self.tell(step)

    def _import_key(self) -> Json:
        """Return what an import depends on: the spec's text, and size and time of each file it names."""
        spec = read_spec(self.spec)
        files = {str(path): _stamp(path) for path in _inputs(spec, self.spec)}
        live = any(source.shape == "sql" for source in spec.source)
        return {"spec": spec.model_dump(mode="json"), "files": files, "live": perf_counter() if live else 0}

    def _import(self) -> str:
        corpus = import_corpus(self.spec, self.out / "corpus")
        counts = f"{corpus.events.height:,} events of {corpus.persons.len():,} persons on {corpus.items.height:,} items"
        return f"{counts}, {len(corpus.platforms)} platform(s)"

    def _split(self, corpus: Corpus, protocol: Protocol) -> str:
        settings = self.settings
        split = Split.make(
            corpus, protocol=protocol, valid_share=settings.valid_share, test_share=settings.test_share
        ).save(self.out / "split")
        return f"{protocol}: {split_sizes(split)}"

    def _fit(self, split: Split) -> str:
        settings = self.settings
        how = FitSettings(methods=settings.methods, budget=settings.budget, seed=settings.seed)
        model = Recommender.fit(split, targets=settings.targets or None, model=settings.model, settings=how)
        model.save(self.out / "model")
        return ", ".join(f"{domain} ({len(target.methods)} methods)" for domain, target in model.targets.items())

    def _evaluate(self, model: Recommender, split: Split) -> str:
        evaluate(model, split).of({"model": version_of(self.out / "model")}).save(self.out / "report")
        return str(self.out / "report" / "report.html")

    def _recommend(self, model: Recommender, path: Path) -> str:
        lists = model.recommend(k=self.settings.k)
        write_lists(lists, path)
        accounts = lists.select("platform", "user").unique().height
        return f"{accounts:,} accounts, {lists.height:,} places, {path}"


class _Later:
    """The model in a folder, opened when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model: Recommender | None = None

    def get(self) -> Recommender:
        self.model = self.model or Recommender.open(self.path)
        return self.model


def split_sizes(split: Split) -> str:
    """Return how many events each part of a split has, in words."""
    counts = split.events["part"].value_counts().sort("part")
    return ", ".join(f"{PARTS[part]} {count:,}" for part, count in counts.iter_rows())


def _key(inputs: object) -> str:
    words = json.dumps([__version__, inputs], sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()


def _encode(corpus: Corpus, model: str | None) -> str:
    vectors = encode_items(corpus.items, open_encoder(model), corpus=corpus.fingerprint)
    return f"{len(vectors):,} items, {vectors.dim} dimensions"


def _inputs(spec: Spec, where: Path) -> list[Path]:
    patterns = [source.path for source in spec.source if source.path]
    patterns += [table.path for source in spec.source for table in (*source.item_maps, *source.user_maps)]
    return sorted({path for pattern in patterns for path in files_of(pattern, where)})


def _stamp(path: Path) -> list[int]:
    """Return size and time of a file; nothing if it is not there (the import will say so)."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
