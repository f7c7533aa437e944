"""Logging and progress, both on standard error so that standard output stays for results."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("isthmus")
logger.addHandler(logging.NullHandler())

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Advance]:
    """Yield ``advance(n)``, which moves a bar of ``total`` steps; a silent one where stderr is no terminal.

    Examples
    --------
    >>> with progress("encode", 10) as advance:
    ...     advance(10)
    """
    if not sys.stderr.isatty():
        logger.info("%s: %s", label, "started" if total is None else f"{total} steps")
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)
