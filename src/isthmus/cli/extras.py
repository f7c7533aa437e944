"""Imports of parts that not every installation has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from isthmus.errors import InputError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import within this block what comes with an extra of the package.

    Raises
    ------
    InputError
        Something is not installed: names the extra that brings it.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(f"{error.name} is not installed", fix=f"pip install 'isthmus[{extra}]'") from None
