"""Isthmus: carry what a recommender learned in one domain over to another, with a language model as the carrier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.data.corpus import Corpus
    from isthmus.encode.base import ItemVectors
    from isthmus.evaluate.report import Report
    from isthmus.recommender import Recommender
    from isthmus.split.temporal import Split

__version__ = "0.1.0"
__all__ = ["Corpus", "IsthmusError", "ItemVectors", "Recommender", "Report", "Split", "__version__"]

_HOMES = {
    "Corpus": "isthmus.data.corpus",
    "ItemVectors": "isthmus.encode.base",
    "Recommender": "isthmus.recommender",
    "Report": "isthmus.evaluate.report",
    "Split": "isthmus.split.temporal",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: ``import isthmus`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'isthmus' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
