"""The demonstration: a simulated town, written as raw logs, taken the whole way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from isthmus import __version__
from isthmus.data.simulate import write_town
from isthmus.files import read_json, storage_errors, write_json
from isthmus.pipeline.steps import RunSettings, Step, Tell, run

SECRET: Final = "ISTHMUS_TOWN_SECRET"  # noqa: S105 (the name of a variable)
#: Seconds for tuning one domain of the town.
BUDGET: Final = 12.0


def demo(
    out: Path, *, seed: int = 0, persons: int = 1500, budget: float = BUDGET, tell: Tell | None = None
) -> list[Step]:
    """Write the raw logs of a simulated town to ``out/logs`` and take them the whole way; return the steps.

    Parameters
    ----------
    out : Path
        Folder for everything; see :func:`isthmus.pipeline.steps.run`.
    seed : int
        Another seed is another town.
    persons : int
        How many people live there.
    budget : float
        Seconds for tuning one domain.
    tell : callable, optional
        Called with each step when it is done.

    Notes
    -----
    The e-mail addresses of the town are invented, and hashed with a secret of the demonstration unless
    ``ISTHMUS_TOWN_SECRET`` is set.
    """
    out = Path(out)
    os.environ.setdefault(SECRET, "the simulated town keeps no secrets")
    return run(_logs(out / "logs", seed, persons), out, RunSettings(budget=budget, seed=seed), tell=tell)


def _logs(folder: Path, seed: int, persons: int) -> Path:
    """Return the spec of the town's logs, written anew unless this very town stands there already."""
    mark, town = folder / "town.json", {"seed": seed, "persons": persons, "version": __version__}
    if mark.exists() and read_json(mark, what="town") == town:
        return folder / "SPEC.toml"
    with storage_errors(folder):
        mark.unlink(missing_ok=True)
        spec = write_town(folder, seed=seed, persons=persons)
    write_json(mark, town)
    return spec
