"""Distillation: a small student learns to say what a fitted model, or several, say; no label is looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError, nearest
from isthmus.evaluate.ranks import top_k
from isthmus.files import Json
from isthmus.log import logger
from isthmus.model.blend import COHORTS, Blend, standardise
from isthmus.rng import generator
from isthmus.train.fit import Target
from isthmus.transfer.distil_lessons import Lessons, Teacher, hear, seen_of
from isthmus.transfer.distil_lists import ListPupil
from isthmus.transfer.distil_steps import Pupil
from isthmus.transfer.distil_vectors import VectorPupil
from isthmus.types import Floats, Indices, Ints

#: What a student imitates.
OBJECTIVES: Final = ("score", "list", "vector")
Kind: TypeAlias = Literal["lists", "vectors"]
#: How much older events count: what is tried.
DECAYS: Final = (0.5, 0.7, 0.9, 1.0)
#: Share of the persons whose lists choose the epoch and the decay, and how many at most.
HELD_BACK: Final = 0.15
MOST_HELD_BACK: Final = 600
#: Epochs without a gain after which teaching stops.
PATIENCE: Final = 4


@dataclass(frozen=True)
class DistilSettings:
    """How a student is taught.

    Parameters
    ----------
    student : {"lists", "vectors"}
        Weights from item to item, or two vectors an item.
    objectives : mapping of str to float
        ``score``: squared error of the scores. ``list``: cross-entropy of the softmax over all items at
        ``temperature`` (Hinton, Vinyals and Dean 2015, arXiv:1503.02531; ListNet, Cao et al., ICML 2007).
        ``vector`` (vectors only): 1 - cosine of a person's vector to the teacher's scores on their principal
        directions (in the manner of Reimers and Gurevych, EMNLP 2020).
    kept : int
        Weights of each item (lists).
    dim : int
        Length of the vectors (vectors).
    temperature : float
        Above 0; the smaller, the more the first places count.
    epochs : int
        At most; 0 leaves the student as it begins.
    learning_rate : float
        Of Adam.
    people : int
        Persons whose lists are imitated, at most.
    probes : int
        Items asked about one by one, at most: those of the target first, then the most popular.
    seed : int
        For everything that draws.
    """

    student: Kind = "lists"
    objectives: Mapping[str, float] = field(default_factory=lambda: {"score": 1.0, "list": 1.0})
    kept: int = 200
    dim: int = 64
    temperature: float = 0.5
    epochs: int = 20
    learning_rate: float = 0.01
    people: int = 8000
    probes: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be taught."""
        known = OBJECTIVES if self.student == "vectors" else OBJECTIVES[:2]
        for name, weight in self.objectives.items():
            if name not in known:
                hint = nearest(name, list(known))
                raise InputError(
                    f"the student '{self.student}' has no objective '{name}'{hint}", fix=f"take {', '.join(known)}"
                )
            if not (np.isfinite(weight) and weight >= 0):
                raise InputError(f"objective {name}={weight}: the weight is no number from 0", fix="write list=1")
        if not any(self.objectives.values()):
            raise InputError("no objective has a weight", fix="write score=1,list=1")
        if not self.temperature > 0:
            raise InputError(f"temperature {self.temperature} is not above 0", fix="take 0.5")
        for name in ("kept", "dim", "people", "probes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}", fix="take 1 or more")


def ensemble(targets: Sequence[Target]) -> Teacher:
    """Return what several fitted targets say together: the mean of their scores, standardised for each person.

    Raises
    ------
    DataError
        They do not rank the same items.
    """
    first = targets[0]
    for other in targets[1:]:
        if not np.array_equal(other.items, first.items):
            raise DataError("the models do not rank the same items", where=first.domain, fix="fit them on one split")

    def score(histories: Histories) -> Floats:
        said = [target.blend.plain.score(target.methods, histories, target.new) for target in targets]
        return said[0] if len(said) == 1 else np.mean([standardise(each) for each in said], axis=0, dtype=np.float32)

    return score


def distil_target(
    targets: Sequence[Target], histories: Histories, n_items: int, settings: DistilSettings | None = None
) -> Target:
    """Return a target whose only method is a student of ``targets``.

    The teacher is asked about each item alone, about nobody in particular, and about the ``histories``; some of
    these are held back, and choose how fast the past fades and when teaching stops by how many of the teacher's ten
    items the student lists. No event serves as a right answer.

    Parameters
    ----------
    targets : sequence of Target
        One fitted target, or several of one domain (an ensemble).
    histories : Histories
        What people did: (P,) over the items of the corpus. An empty one is allowed.
    n_items : int
        Items of the corpus ``N``.
    settings : DistilSettings, optional
        How.

    Raises
    ------
    InputError
        Nobody has a history.
    DataError
        The targets do not rank the same items.
    """
    settings = settings or DistilSettings()
    return teach(listen(targets, histories, n_items, settings), settings)


@dataclass(frozen=True)
class Heard:
    """What a teacher was asked and said: several students may learn from it.

    Parameters
    ----------
    target : Target
        The first of the targets that teach.
    lessons : Lessons
        What was said to learn from.
    exam : Exam
        What was said of persons who are held back.
    """

    target: Target
    lessons: Lessons
    exam: Exam


def listen(targets: Sequence[Target], histories: Histories, n_items: int, settings: DistilSettings) -> Heard:
    """Return what the targets together say; parameters and errors are those of :func:`distil_target`."""
    teacher, first = ensemble(targets), targets[0]
    people, judges = _people(histories, settings)
    lessons = hear(teacher, people, first.items, n_items, settings.probes)
    return Heard(first, lessons, Exam.of(teacher, judges, first.items))


def teach(heard: Heard, settings: DistilSettings) -> Target:
    """Return a target whose only method is a student of what was heard."""
    started, first, exam = time.monotonic(), heard.target, heard.exam
    pupil = _pupil(heard.lessons, exam, settings)
    reached = exam.agreement(pupil.student.score)
    log: list[Json] = [{"epoch": 0, "agreement@10": round(reached, 6), "decay": pupil.student.number("decay")}]
    best, left = pupil.snapshot(), PATIENCE
    for epoch in range(1, settings.epochs + 1):
        loss = pupil.learn(generator(settings.seed, "distil", epoch))
        agreed = exam.agreement(pupil.student.score)
        log.append({"epoch": epoch, "agreement@10": round(agreed, 6), "loss": round(loss, 6)})
        logger.info("distil %s: epoch %d, agreement@10 %.4f, loss %.4f", first.domain, epoch, agreed, loss)
        left -= 1
        if agreed > reached:
            reached, best, left = agreed, pupil.snapshot(), PATIENCE
        if left == 0:
            break
    pupil.restore(best)
    student = pupil.finished()
    log.append({"seconds": round(time.monotonic() - started, 1), "agreement@10": round(reached, 6)})
    weights = dict.fromkeys(COHORTS, (1.0,))
    return Target(first.domain, first.items, first.new, [student], Blend((student.name,), weights), log)


@dataclass(frozen=True)
class Exam:
    """What the teacher lists for persons who are held back.

    Parameters
    ----------
    histories : Histories
        ``B`` persons.
    seen : tuple of int64 arrays (E,), (E,)
        Row and column of what each person had of the target items.
    lists : int32 array (B, 10)
        The teacher's list for each person, without what was seen; -1 marks an empty place.
    """

    histories: Histories
    seen: tuple[Ints, Ints]
    lists: Indices

    @classmethod
    def of(cls, teacher: Teacher, histories: Histories, items: Indices) -> Exam:
        """Return the exam that ``teacher`` sets about ``histories``."""
        seen = seen_of(histories, items)
        return cls(histories, seen, _lists(teacher, histories, seen))

    def agreement(self, score: Teacher) -> float:
        """Return the mean share of the teacher's ten items that are among the ten of ``score``."""
        mine = _lists(score, self.histories, self.seen)
        same = (self.lists[:, :, None] == mine[:, None, :]) & (self.lists >= 0)[:, :, None]
        return float(same.any(axis=2).sum() / max(int((self.lists >= 0).sum()), 1))


def _lists(score: Teacher, histories: Histories, seen: tuple[Ints, Ints]) -> Indices:
    rows, columns = seen
    parts = []
    for start in range(0, len(histories), 256):
        stop = min(start + 256, len(histories))
        scores = score(histories.take(np.arange(start, stop)))
        inside = (rows >= start) & (rows < stop)
        scores[rows[inside] - start, columns[inside]] = -np.inf
        best = top_k(scores, min(10, scores.shape[1]))
        parts.append(np.pad(best, [(0, 0), (0, 10 - best.shape[1])], constant_values=-1))
    return np.concatenate(parts)


def _people(histories: Histories, settings: DistilSettings) -> tuple[Histories, Histories]:
    """Return the histories that teach and those that are held back; one person does both."""
    order = generator(settings.seed, "distil", "people").permutation(np.flatnonzero(histories.lengths > 0))
    if order.size == 0:
        raise InputError("nobody has a history to ask the teacher about", fix="give the split the model was fitted on")
    order = order[: settings.people]
    held = min(MOST_HELD_BACK, int(np.ceil(HELD_BACK * order.size))) if order.size > 1 else 0
    judges = order[:held] if held else order
    return histories.take(np.sort(order[held:])), histories.take(np.sort(judges))


def _pupil(lessons: Lessons, exam: Exam, settings: DistilSettings) -> Pupil:
    """Return the student before any lesson with the decay that agrees most with the teacher."""
    pupil: Pupil
    if settings.student == "lists":
        pupil = by_lists = ListPupil(lessons, settings.objectives, settings.temperature, settings.learning_rate)
        by_lists.begin(settings.kept)
    else:
        pupil = by_vectors = VectorPupil(lessons, settings.objectives, settings.temperature, settings.learning_rate)
        by_vectors.begin(settings.dim, settings.seed)
    found = []
    for decay in DECAYS:
        pupil.student.settings["decay"] = decay
        found.append((exam.agreement(pupil.student.score), decay))
    pupil.student.settings["decay"] = max(found, key=lambda pair: pair[0])[1]
    return pupil
