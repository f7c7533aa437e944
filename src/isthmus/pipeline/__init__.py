"""The whole way over all floors: judge models, and go from raw logs to lists in one call."""

from isthmus.pipeline.judging import compare, evaluate
from isthmus.pipeline.steps import RunSettings, Step, run
from isthmus.pipeline.town import demo

__all__ = ["RunSettings", "Step", "compare", "demo", "evaluate", "run"]
