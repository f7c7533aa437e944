"""Optuna's studies on disk: a journal of JSON lines that a kill cannot spoil, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from isthmus.errors import ArtefactError, InputError
from isthmus.files import Json, read_json, storage_errors, write_json
from isthmus.rng import generator

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

Sampler: TypeAlias = Literal["tpe", "random"]
Pruner: TypeAlias = Literal["median", "none"]

FORMAT: Final = 1
CARD: Final = "search.json"
JOURNAL: Final = "journal.jsonl"
LOCK: Final = "lock"
#: Trials drawn at random before the sampler learns from them, and finished before any is pruned.
RANDOM_FIRST: Final = 8
PRUNE_AFTER: Final = 4
#: Epochs of a trial that are never judged.
PATIENT: Final = 1


def optuna_() -> ModuleType:
    """Return the module ``optuna``.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return import_module("optuna")
    except ImportError as error:
        raise InputError("optuna is not installed", fix="pip install 'isthmus[transfer]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own messages down to errors; what was set before is set again."""
    log = optuna_().logging
    before = log.get_verbosity()
    log.set_verbosity(log.ERROR)
    try:
        yield
    finally:
        log.set_verbosity(before)


@contextmanager
def opened(folder: Path | None, card: Json) -> Iterator[BaseStorage]:
    """Yield the storage of a search: in memory, or in ``folder``, where it goes on with what is there.

    Parameters
    ----------
    folder : Path, optional
        New, empty, or of an earlier search.
    card : dict
        What the trials depend on: an earlier search must have had the same.

    Raises
    ------
    InputError
        Another program searches there, the folder was not written by a search, or that search had another card.
    ArtefactError
        The card or the journal is damaged.
    """
    optuna = optuna_()
    if folder is None:
        yield optuna.storages.InMemoryStorage()
        return
    with storage_errors(folder):
        _check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _claim(folder, card)
            journal = folder / JOURNAL
            _mend(journal)
            Path(f"{journal}.lock").unlink(missing_ok=True)
            backend = optuna.storages.journal.JournalFileBackend(str(journal))
            try:
                storage = optuna.storages.JournalStorage(backend)
            except (ValueError, KeyError) as error:
                raise ArtefactError(f"damaged: {error}", where=journal, fix="search anew in another folder") from error
            yield storage


def study_of(storage: BaseStorage, name: str, pruner: Pruner) -> Study:
    """Return the study of one method; trials that a kill left unfinished count as never begun."""
    optuna = optuna_()
    study: Study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", pruner=_pruner(pruner), load_if_exists=True
    )
    states = optuna.trial.TrialState
    for left in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(left.number, state=states.FAIL)
    return study


def sampler_for(kind: Sampler, seed: int, name: str, trial: int) -> BaseSampler:
    """Return what draws one trial: it depends on the trials before and on its number, not on when a search stopped."""
    samplers = optuna_().samplers
    drawn = int(generator(seed, "search", name, trial).integers(1 << 31))
    if kind == "random":
        return samplers.RandomSampler(seed=drawn)
    return samplers.TPESampler(seed=drawn, n_startup_trials=RANDOM_FIRST)


def _pruner(kind: Pruner) -> BasePruner:
    pruners = optuna_().pruners
    if kind == "none":
        return pruners.NopPruner()
    return pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PATIENT)


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder / CARD).is_file():
        return
    if not folder.is_dir() or any(path.name != LOCK and path.name[0] != "." for path in folder.iterdir()):
        raise InputError("exists and was not written by a search", where=folder, fix="choose another --out")


def _claim(folder: Path, card: Json) -> None:
    """Write the card of a new search, or compare it with that of the search to go on with."""
    path = folder / CARD
    given = json.loads(json.dumps({"format": FORMAT, **card}))
    if not path.is_file():
        write_json(path, given)
        return
    there = read_json(path, what="search")
    other = sorted(key for key in given.keys() | there.keys() if given.get(key) != there.get(key))
    if other:
        said = "it has another " + ", ".join(other)
        raise InputError(f"cannot go on with this search: {said}", where=folder, fix="choose another --out")


def _mend(journal: Path) -> None:
    """Cut off a last line that a kill or a full disk left half written."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as handle:
            handle.truncate(whole)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with (folder / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("another search writes there", where=folder, fix="wait, or choose another --out") from None
        yield
