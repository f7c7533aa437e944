"""Floor 9, the façade: load, recommend, find similar items, save; external ids in and out."""

from isthmus.recommender.facade import Recommender, System

__all__ = ["Recommender", "System"]
