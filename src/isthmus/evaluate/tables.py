"""A report of tables: all figures as JSON, and one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final, cast

from isthmus.evaluate.cards import machine_card
from isthmus.evaluate.report import CONTENT, PAGE, plain
from isthmus.files import Json, new_folder, write_json

FORMAT: Final = "tables 1"


@dataclass(frozen=True)
class Sheet:
    """One table of a report.

    Parameters
    ----------
    title : str
        Heading.
    columns : sequence of str
        Names of the columns.
    rows : sequence of sequence
        Cells: text, numbers, or None.
    note : str
        A sentence under the heading.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True)
class TableReport:
    """Some tables, what they say in a sentence or two, and how they came about.

    Parameters
    ----------
    title : str
        Heading of the page.
    notes : sequence of str
        Sentences under it.
    sheets : sequence of Sheet
        The tables.
    cards : mapping of str to mapping
        Protocol, data, machine (:func:`isthmus.evaluate.cards.machine_card` if not given).
    figures : mapping
        Everything else that ``report.json`` holds.

    Examples
    --------
    >>> import tempfile
    >>> made = TableReport("Ratings", ["Good."], [Sheet("Errors", ["system", "RMSE"], [["bias", 0.9]])])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made.save(folder + "/report")
    ...     "0.9000" in Path(folder, "report", "report.html").read_text()
    True
    """

    title: str
    notes: Sequence[str]
    sheets: Sequence[Sheet]
    cards: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    figures: Mapping[str, object] = field(default_factory=dict)

    @property
    def data(self) -> Json:
        """Everything in the report, as JSON values."""
        content = {
            **self.figures,
            "format": FORMAT,
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "title": self.title,
            "notes": list(self.notes),
            "cards": {"machine": machine_card(), **self.cards},
            "sheets": [
                {"title": s.title, "note": s.note, "columns": list(s.columns), "rows": [list(row) for row in s.rows]}
                for s in self.sheets
            ],
        }
        return cast("Json", plain(content))

    def save(self, path: str | Path) -> None:
        """Write ``report.json`` and ``report.html`` to folder ``path``, whole or not at all."""
        data = self.data
        page = _render(data)
        with new_folder(Path(path)) as folder:
            write_json(folder / CONTENT, data)
            (folder / PAGE).write_text(page, encoding="utf-8")


def interval(value: object, low: object, high: object, digits: int = 4) -> str:
    """Return a figure with its interval as tables write it.

    Examples
    --------
    >>> interval(0.5, 0.4, 0.6, 2), interval(None, None, None)
    ('0.50 [0.40, 0.60]', '–')
    """
    if not all(isinstance(part, (int, float)) for part in (value, low, high)):
        return "–"
    first, *edges = (f"{part:.{digits}f}".replace("-", "−") for part in (value, low, high))
    return f"{first} [{', '.join(edges)}]"


def _render(data: Json) -> str:
    from jinja2 import Environment, StrictUndefined

    from isthmus.evaluate.page import number

    room = files("isthmus.evaluate")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["number"] = number
    template = environment.from_string(room.joinpath("tables.html").read_text(encoding="utf-8"))
    return template.render(report=data, style=room.joinpath("report.css").read_text(encoding="utf-8"))
