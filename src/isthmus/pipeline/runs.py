"""The steps of a trial, kept on disk as they are done: a trial that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from isthmus import __version__
from isthmus.errors import ArtefactError
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.ranks import Ranks
from isthmus.files import Json, json_text
from isthmus.log import logger
from isthmus.model.base import Settings, State
from isthmus.model.blend import Blend
from isthmus.pipeline.kept import Parts, read_parts, write_parts
from isthmus.split.task import Task
from isthmus.train.fit import Target

KIND: Final = "run"


@dataclass(frozen=True)
class Run:
    """One step of a trial: what was judged on test, and what the blended system was made of.

    Parameters
    ----------
    outcomes : dict of str to Outcome
        By arm.
    blend : Blend
        Of the blended system.
    settings : dict of str to dict
        What each of its methods was learned with.
    target : Target, optional
        The fitted system; None for a step that was read from disk.
    """

    outcomes: Mapping[str, Outcome]
    blend: Blend
    settings: Mapping[str, Settings]
    target: Target | None = None

    @classmethod
    def of(cls, target: Target, outcomes: Mapping[str, Outcome]) -> Run:
        """Return the step that fitted ``target``."""
        return cls(outcomes, target.blend, {method.name: method.settings for method in target.methods}, target)


class Runs:
    """The steps of one trial, in a folder if there is one.

    Parameters
    ----------
    work : Path, optional
        Folder; nothing is kept without.
    task : Task
        The test question.
    about : dict
        All that the outcome of a step depends on; a step done under something else is not taken for it.
    """

    def __init__(self, work: Path | None, task: Task, about: Json) -> None:
        self.work, self.task = work, task
        self.about: Json = {**about, "version": __version__, "persons": len(task)}

    def do(self, step: str, make: Callable[[], Run]) -> Run:
        """Return the run of a step: read if it was done before, else made, and kept."""
        if self.work is None:
            return make()
        key = hashlib.sha256(json_text({**self.about, "step": step}).encode()).hexdigest()[:16]
        folder = self.work / f"{step.replace(' ', '-')}-{key}"
        if folder.exists():
            try:
                return self._read(folder)
            except ArtefactError as error:
                logger.warning("%s; the step is done again", error)
        run = make()
        write_parts(folder, KIND, _parts(run))
        return run

    def _read(self, folder: Path) -> Run:
        parts = read_parts(folder, KIND)
        systems = cast("Mapping[str, Json]", parts.said["outcomes"])
        outcomes = {arm: _outcome(said, arm, parts.arrays, self.task) for arm, said in systems.items()}
        blend = Blend.of_json(tuple(cast("list[str]", parts.said["methods"])), cast("Json", parts.said["blend"]))
        return Run(outcomes, blend, cast("Mapping[str, Settings]", parts.said["settings"]))


def _parts(run: Run) -> Parts:
    said: Json = {
        "outcomes": {arm: _facts(outcome) for arm, outcome in run.outcomes.items()},
        "methods": list(run.blend.methods),
        "blend": run.blend.to_json(),
        "settings": dict(run.settings),
    }
    arrays: State = {}
    for arm, outcome in run.outcomes.items():
        ranks = outcome.ranks
        arrays |= {f"{arm}.above": ranks.above, f"{arm}.ties": ranks.ties, f"{arm}.listed": ranks.listed}
        arrays[f"{arm}.top"] = outcome.top
    return Parts(said, arrays, {})


def _facts(outcome: Outcome) -> Json:
    return {
        "system": outcome.system,
        "ks": list(outcome.ks),
        "seconds": outcome.seconds,
        "ranking_seconds": outcome.ranking_seconds,
    }


def _outcome(said: Json, arm: str, arrays: State, task: Task) -> Outcome:
    above, ties = (arrays[f"{arm}.{name}"].astype(np.float64, copy=False) for name in ("above", "ties"))
    listed = arrays[f"{arm}.listed"].astype(np.int64, copy=False)
    top = arrays[f"{arm}.top"].astype(np.int32, copy=False)
    seconds, ranking = cast("float", said["seconds"]), cast("float", said["ranking_seconds"])
    ks = tuple(cast("list[int]", said["ks"]))
    return Outcome(str(said["system"]), task, ks, Ranks(task.target_indptr, above, ties, listed), top, seconds, ranking)
