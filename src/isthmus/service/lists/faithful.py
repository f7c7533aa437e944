"""How faithful the evidence of an explanation is: what the score does without it, and with nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.service.lists.live import Live
from isthmus.service.lists.scoring import scores_of_versions
from isthmus.types import Indices

#: Pieces of evidence that are judged together, at most.
STRONGEST: Final = 3
#: A history that moves the score less than this explains nothing.
LEAST: Final = 1e-6
#: Digits of a share that are shown.
DIGITS: Final = 3


def faithfulness(
    live: Live, domain: str, history: Histories, row: int, told: Mapping[int, float], scores: tuple[float, float]
) -> dict[str, float | int] | None:
    """Return how far the strongest evidence alone accounts for what the history does to a score.

    Judged are the strongest pieces that move the score the way the whole history does.

    Comprehensiveness and sufficiency after ERASER (DeYoung et al., ACL 2020), both as shares of what the whole history
    does: with the score s of the whole history, s0 of none, s- without the evidence, s+ with the evidence alone,
    comprehensiveness = (s - s-) / (s - s0) and sufficiency = (s+ - s0) / (s - s0). Both are 1 where the evidence is all
    that counts, 0 where it counts for nothing, above 1 where the rest of the history says the opposite.

    Parameters
    ----------
    live : Live
        The model.
    domain : str
        Of the item explained.
    history : Histories
        Of one person.
    row : int
        The item explained.
    told : dict of int to float
        What each item of the evidence gives to the score, the strongest first; :data:`STRONGEST` of them are judged.
    scores : (float, float)
        s and s0.

    Returns
    -------
    dict or None
        ``of``, ``comprehensiveness``, ``sufficiency``; None without evidence, or where the history does nothing.
    """
    whole, nobody = scores
    alike = [item for item, gain in told.items() if gain * (whole - nobody) > 0]
    strongest: Indices = np.array(alike[:STRONGEST], np.int32)
    if not strongest.size or abs(whole - nobody) < LEAST:
        return None
    mine = np.isin(history.items, strongest)
    versions = history.take(np.zeros(2, np.int64)).keep(np.concatenate([~mine, mine]))
    without, alone = scores_of_versions(live, domain, versions, [row])[:, 0].astype(float)
    return {
        "of": int(strongest.size),
        "comprehensiveness": round(float((whole - without) / (whole - nobody)), DIGITS),
        "sufficiency": round(float((alone - nobody) / (whole - nobody)), DIGITS),
    }
