"""A small recommender that says what a large one, or several, say; and what each costs to serve."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.encode.static import is_static
from isthmus.encode.template import Template
from isthmus.errors import DataError, InputError
from isthmus.files import Json, read_json
from isthmus.model.base import Features
from isthmus.recommender.declared import declare
from isthmus.recommender.facade import Recommender
from isthmus.recommender.store import MANIFEST, Content
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import Target
from isthmus.transfer.distil import DistilSettings, distil_target


def distil(teachers: Sequence[Recommender], split: Split, settings: DistilSettings | None = None) -> Recommender:
    """Return a recommender whose every target is a small student of the ``teachers``.

    It knows the same people and items, and is used like any other. The histories of ``split`` before its test part
    are what the teachers are asked about; test events are never looked at, and no event is taken as a right answer.

    Parameters
    ----------
    teachers : sequence of Recommender
        One, or several fitted on the same data: an ensemble, whose scores are standardised and averaged.
    split : Split
        The data they were fitted on.
    settings : DistilSettings, optional
        Which student, and how it is taught.

    Raises
    ------
    InputError
        No teacher is given, or nobody has a history.
    DataError
        A teacher was fitted on other data, or the teachers share no target domain.
    """
    if not teachers:
        raise InputError("no model to learn from", fix="name one or more")
    settings = settings or DistilSettings()
    for teacher in teachers:
        if teacher.card.get("fingerprint") != split.corpus.fingerprint:
            raise DataError("the model was fitted on other data", where=split.corpus.name, fix="give its own split")
    first = teachers[0]
    shared = [domain for domain in first.targets if all(domain in other.targets for other in teachers)]
    if not shared:
        raise DataError("the models share no target domain", where=split.corpus.name)
    known = split.known(TEST)
    histories = Histories.from_frame(known, known["person"].unique().sort().to_numpy().astype(np.int64))
    targets = {
        domain: distil_target(
            [teacher.targets[domain] for teacher in teachers], histories, first.items.height, settings
        )
        for domain in shared
    }
    return Recommender(distilled_content(first, targets, _said(teachers, settings)))


def distilled_content(teacher: Recommender, targets: dict[str, Target], said: Json) -> Content:
    """Return the content of ``teacher`` with other ``targets``; without vectors where words say what is alike.

    ``said`` goes into the card.
    """
    features = teacher.features
    lean = features.text is not None
    content = replace(
        teacher.content,
        targets=targets,
        readers=replace(teacher.content.readers, vectors=not lean and features.vectors is not None, texts=False),
        features=Features(features.text, None if lean else features.vectors, features.places),
        card={**teacher.card, "distilled": said},
    )
    return declare(content)


def _said(teachers: Sequence[Recommender], settings: DistilSettings) -> Json:
    methods = [{domain: list(target.blend.methods) for domain, target in each.targets.items()} for each in teachers]
    return {
        "student": settings.student,
        "objectives": dict(settings.objectives),
        "temperature": settings.temperature,
        "seed": settings.seed,
        "teachers": methods,
    }


@dataclass(frozen=True)
class Cost:
    """What serving one domain costs.

    Parameters
    ----------
    one, batch : float
        Median milliseconds of processor time for the scores of one person, and of each person of a batch.
    megabytes : float
        Arrays of the methods that have a weight, as they are stored.
    """

    one: float
    batch: float
    megabytes: float


def serving_cost(model: Recommender, domain: str, histories: Histories, *, batch: int = 256, times: int = 7) -> Cost:
    """Return what it costs to score ``domain`` for ``histories`` (at least one), measured now on this machine.

    Raises
    ------
    InputError
        No history is given.
    """
    if len(histories) == 0:
        raise InputError("no history to measure with", where=domain, fix="give at least one person")
    system, target = model.system(domain), model.targets[domain]
    many = histories.take(np.arange(min(batch, len(histories))))
    seconds: dict[int, list[float]] = {1: [], len(many): []} if len(many) > 1 else {1: []}
    system.score(many)
    for turn in range(times):
        for size, found in seconds.items():
            some = many if size > 1 else many.take(np.array([turn % len(many)]))
            start = time.process_time()
            system.score(some)
            found.append(1000 * (time.process_time() - start) / size)
    used = [method for method in target.methods if target.blend.weighs(method.name)]
    stored = sum(array.nbytes for method in used for array in method.state().values())
    return Cost(float(np.median(seconds[1])), float(np.median(seconds[len(many)])), stored / 1e6)


def some_histories(split: Split, most: int = 256) -> Histories:
    """Return the histories before test of at most ``most`` people, spread evenly over all."""
    known = split.known(TEST)
    persons = known["person"].unique().sort().to_numpy().astype(np.int64)
    return Histories.from_frame(known, persons[np.unique(np.linspace(0, persons.size - 1, most).astype(np.int64))])


def known_texts(split: Split) -> list[str]:
    """Return the texts of the items that were met before test: what a text student may learn from.

    Raises
    ------
    InputError
        None of them has a text.
    """
    met = split.known(TEST)["item"].unique().sort()
    texts = [text for text in Template().render(split.corpus.items[met]).to_list() if text]
    if not texts:
        raise InputError("no item has a text", where=split.corpus.name, fix="give a split whose items have texts")
    return texts


def reads_with(model: str) -> str | None:
    """Return the language model behind ``model``: that of a recommender's folder, else ``model`` itself.

    ``bundled`` is the bundled one, which is None.

    Raises
    ------
    InputError
        It reads with a static encoder, which has no layers and no sentence vectors of its own to teach.
    """
    found: str | None = model
    if model == "bundled":
        return None
    if (Path(model) / MANIFEST).is_file():
        said = read_json(Path(model) / MANIFEST, what="model")["language_model"]
        found = None if said is None else str(said)
    if is_static(found):
        raise InputError("is a static encoder already", where=found, fix="name the model it was made from")
    return found
