"""What a search found: the best settings of each method, and every trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import polars as pl

from isthmus.errors import ArtefactError
from isthmus.files import Json, new_file, read_json, write_json
from isthmus.model.base import Setting, Settings
from isthmus.train.methods import make

FORMAT: Final = 1
BEST: Final = "best.json"
TRIALS: Final = "trials.parquet"
#: Columns of the table of trials.
COLUMNS: Final = {
    "method": pl.String,
    "trial": pl.Int64,
    "state": pl.String,
    "ndcg@10": pl.Float64,
    "epochs": pl.Int64,
    "seconds": pl.Float64,
    "settings": pl.String,
    "error": pl.String,
}
_FIX: Final = "name the best.json that isthmus search wrote"


@dataclass(frozen=True)
class Best:
    """The best trial of one method, and what the search spent on it.

    Parameters
    ----------
    settings : dict
        All settings of the method; what is not searched stands at its default.
    ndcg : float
        NDCG@10 on validation.
    usual : float or None
        The same with the default settings; None if these could not be learned.
    trials, pruned, failed : int
        Trials ended; of these stopped early, and failed.
    seconds : float
        Time of all trials.
    quick : dict
        Settings that stood in during the search because learning is slow; not part of ``settings``.
    """

    settings: Settings
    ndcg: float
    usual: float | None
    trials: int
    pruned: int
    failed: int
    seconds: float
    quick: Settings


@dataclass(frozen=True)
class Found:
    """What a search found.

    Parameters
    ----------
    domain : str
        The target domain.
    fingerprint : str
        Of the split.
    best : dict of str to Best
        By method; those without a trial that went well are absent.
    trials : polars.DataFrame
        One row a trial that ended: method, trial (from 0), state (done, cut, pruned, failed), ndcg@10, epochs
        (reported), seconds, settings (JSON), error.
    """

    domain: str
    fingerprint: str
    best: dict[str, Best]
    trials: pl.DataFrame

    @property
    def settings(self) -> dict[str, Settings]:
        """The best settings by method, as :class:`~isthmus.train.fit.FitSettings` takes them."""
        return {name: dict(best.settings) for name, best in self.best.items()}

    def write_best(self, folder: Path) -> None:
        """Write ``best.json``, whole or not at all."""
        content: Json = {
            "format": FORMAT,
            "domain": self.domain,
            "fingerprint": self.fingerprint,
            "methods": {name: asdict(best) for name, best in self.best.items()},
        }
        write_json(folder / BEST, content)

    def write(self, folder: Path) -> None:
        """Write ``best.json`` and ``trials.parquet``."""
        self.write_best(folder)
        with new_file(folder / TRIALS) as part:
            self.trials.write_parquet(part)


def read_best(path: Path) -> tuple[str, dict[str, Settings]]:
    """Return the domain and the best settings of each method from a ``best.json``.

    Raises
    ------
    ArtefactError
        Not such a file, of another format version, or with a value of a wrong kind.
    InputError
        A method or setting that this version does not know.
    """
    path = path / BEST if path.is_dir() else path
    content = read_json(path, what="result of a search")
    if content.get("format") != FORMAT:
        raise ArtefactError(f"format {content.get('format')}, this version reads {FORMAT}", where=path, fix=_FIX)
    methods = content.get("methods")
    if not isinstance(methods, dict) or not all(isinstance(best, dict) for best in methods.values()):
        raise ArtefactError("the result of a search is damaged: no methods", where=path, fix=_FIX)
    return str(content.get("domain", "")), {name: _settings(name, best, path) for name, best in methods.items()}


def _settings(name: str, best: Json, path: Path) -> Settings:
    given = best.get("settings")
    if not isinstance(given, dict):
        raise ArtefactError(f"the result of a search is damaged: no settings of {name}", where=path, fix=_FIX)
    method = make(name, cast("Mapping[str, Setting]", given))
    for setting, value in given.items():
        if not _alike(value, method.defaults[setting]):
            what = f"{name}: {setting} is {value!r}, and should be like {method.defaults[setting]!r}"
            raise ArtefactError(what, where=path, fix=_FIX)
    return method.settings


def _alike(value: object, usual: Setting) -> bool:
    if isinstance(usual, bool | str):
        return isinstance(value, type(usual))
    return isinstance(value, int | float) and not isinstance(value, bool)
