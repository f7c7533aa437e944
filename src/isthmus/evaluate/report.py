"""The report: all results of an evaluation as one JSON file and one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Final, cast

from isthmus.errors import ArtefactError
from isthmus.evaluate.cards import machine_card
from isthmus.evaluate.page import render
from isthmus.evaluate.sections import Section, describe
from isthmus.files import Json, new_folder, read_json, write_json

FORMAT: Final = 1
CONTENT: Final = "report.json"
PAGE: Final = "report.html"


@dataclass(frozen=True)
class Cards:
    """What a report says about how it came about, shown as given.

    Parameters
    ----------
    title : str
        Heading of the page.
    protocol : mapping
        The protocol card of the split.
    data : mapping
        The data card (:func:`isthmus.evaluate.cards.data_card`).
    audit : sequence of mapping, optional
        Flags of the leak audit, one row a flag; None if there was no audit.
    notes : sequence of str
        Sentences under the heading.
    machine : mapping
        Machine and versions.
    """

    title: str
    protocol: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    audit: Sequence[Mapping[str, object]] | None = None
    notes: Sequence[str] = ()
    machine: Mapping[str, object] = field(default_factory=machine_card)


class Report:
    """The results of an evaluation.

    Examples
    --------
    >>> import tempfile
    >>> report = Report.build(Cards("An empty report", machine={}), [])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report.save(folder + "/report")
    ...     Report.open(folder + "/report").data["title"]
    'An empty report'
    """

    def __init__(self, data: Json) -> None:
        self._data = data

    @classmethod
    def build(cls, cards: Cards, sections: Sequence[Section], *, metric: str = "ndcg@10", seed: int = 0) -> Report:
        """Return the report of some sections.

        Parameters
        ----------
        cards : Cards
            Title, protocol, data, audit, machine.
        sections : sequence of Section
            One for each task.
        metric : str
            The metric that is plotted and tested; everything else is in tables.
        seed : int
            Seed of intervals and tests.
        """
        content: Json = {
            "format": FORMAT,
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "title": cards.title,
            "notes": list(cards.notes),
            "protocol": dict(cards.protocol),
            "data": dict(cards.data),
            "audit": None if cards.audit is None else [dict(flag) for flag in cards.audit],
            "machine": dict(cards.machine),
            "seed": seed,
            "sections": [describe(section, metric=metric, seed=seed) for section in sections],
        }
        return cls(cast("Json", plain(content)))

    @classmethod
    def open(cls, path: str | Path) -> Report:
        """Return the report in folder ``path``.

        Raises
        ------
        ArtefactError
            No report there, or one of another format version.
        """
        content = read_json(Path(path) / CONTENT, what="report")
        if content.get("format") != FORMAT:
            raise ArtefactError(
                f"report format {content.get('format')}, this version reads {FORMAT}",
                where=path,
                fix="evaluate again",
            )
        return cls(content)

    def of(self, models: Mapping[str, str]) -> Report:
        """Return the report that also says what it judged: names of models to their versions.

        Examples
        --------
        >>> Report.build(Cards("An empty report", machine={}), []).of({"mine": "0a1b"}).data["models"]
        {'mine': '0a1b'}
        """
        return Report({**self._data, "models": dict(models)})

    @property
    def data(self) -> Json:
        """Everything in the report, as JSON values; a number without a value is None."""
        return self._data

    @property
    def html(self) -> str:
        """The page, with styles and plots inside."""
        return render(self._data)

    def save(self, path: str | Path) -> None:
        """Write ``report.json`` and ``report.html`` to folder ``path``, whole or not at all."""
        page = self.html
        with new_folder(Path(path)) as folder:
            write_json(folder / CONTENT, self._data)
            (folder / PAGE).write_text(page, encoding="utf-8")


def plain(value: object) -> object:
    """Return ``value`` as JSON can hold it: numbers of NumPy as Python's, NaN and infinity as None, the rest as text.

    Examples
    --------
    >>> plain({"a": (1, float("nan")), 2: None})
    {'a': [1, None], '2': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", 1) == 0:
        value = item()
    elif hasattr(value, "tolist"):
        return plain(cast("list[object]", value.tolist()))
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
