"""Names every floor shares: column names, event words, and the legend of array shapes.

Shape legend used in docstrings and as suffixes: ``P`` persons, ``B`` persons of one batch, ``N`` items of
the corpus, ``T`` items of the target domain, ``H`` events of one history, ``L`` list length, ``D`` vector
dimension, ``F`` text features, ``M`` methods of a blend.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.int32]
Bools: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int8]

EventName = Literal[
    "view",
    "click",
    "cart",
    "purchase",
    "rate",
    "play",
    "like",
    "comment",
    "share",
    "impression",
    "ad_click",
]

#: How much one event says about taste. Events of weight 0 are kept in the corpus and never used as taste.
EVENT_WEIGHTS: Final[dict[str, float]] = {
    "view": 0.3,
    "click": 0.4,
    "cart": 0.7,
    "purchase": 1.0,
    "rate": 1.0,
    "play": 0.8,
    "like": 1.0,
    "comment": 0.7,
    "share": 0.9,
    "impression": 0.0,
    "ad_click": 0.0,
}
EVENTS: Final[tuple[str, ...]] = tuple(EVENT_WEIGHTS)

#: What a declared rule between two items can say.
RULES: Final[tuple[str, str, str]] = ("after", "not before", "excludes")

PARTS: Final[tuple[str, ...]] = ("train", "valid", "test", "context")
Part = Literal["train", "valid", "test", "context"]
Protocol = Literal["time", "leave-last"]
