"""What a tenant's drift is judged by: its events, its new items and its lists; no name of anybody is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isthmus.files import write_json
from isthmus.log import logger
from isthmus.service.log.records import EVENT, Entry
from isthmus.service.watch.drift import Feature
from isthmus.service.watch.reference import Reference, joined
from isthmus.service.watch.texts import length, script
from isthmus.types import EVENT_WEIGHTS

if TYPE_CHECKING:
    from isthmus.service.lists.items import Account
    from isthmus.service.lists.live import Live, Top

#: Events and lists of a window, at least.
WINDOW: Final = 1000
#: New items of a window.
ITEMS: Final = 400
#: Events, and lists, of one person that count in a window.
EACH: Final = 20
_PLACES: Final = (1 << 16) - 1


class Observer:
    """Counts what comes and goes; belongs to one event loop.

    Parameters
    ----------
    live : Live
        The model that answers.
    reference : Reference
        What it was made for.
    file : Path
        Where the reference of the lists is kept: their first window with this model.
    seconds : float
        How long a window of events or lists is open, at least: an hour is not like another.

    Attributes
    ----------
    features : dict of str to Feature
        What is counted.
    """

    def __init__(self, live: Live, reference: Reference, file: Path, seconds: float) -> None:
        self._file, self._seconds = file, seconds
        self.features: dict[str, Feature] = {}
        self.replaced(live, reference)

    def replaced(self, live: Live, reference: Reference) -> None:
        """Begin anew with another model."""
        self._live, self._reference = live, reference
        self._domains: dict[int, str] = {}
        self._some = {name: bytearray(_PLACES + 1) for name in ("events", "lists")}
        self._kept = self._read()
        self.features = {
            "event_domains": Feature("domain of the item of each event", WINDOW, reference.domains),
            "event_kinds": Feature("kind of each event", WINDOW, reference.kinds),
            "event_items": Feature("whether the item of each event is known", WINDOW, reference.known),
            "list_layers": Feature("layer of each list", WINDOW, self._kept.get("list_layers")),
            "list_ranks": Feature("popularity of the first item of each list", WINDOW, self._kept.get("list_ranks")),
            "item_lengths": Feature("length of the text of each new item", ITEMS, reference.lengths),
            "item_scripts": Feature("script of the text of each new item", ITEMS, reference.scripts),
        }
        if reference.meaning is not None:
            self.features["item_meanings"] = Feature(
                "group of items that each new item is nearest to", ITEMS, reference.meaning.reference
            )

    def grown(self, live: Live) -> None:
        """Know the items that came to the same model."""
        self._live = live
        self._domains.clear()

    def event(self, entry: Entry) -> None:
        """Count a record of the log; only events that say something of taste are."""
        if entry.kind != EVENT or not EVENT_WEIGHTS[entry.event] or self._enough("events", entry.platform, entry.user):
            return
        row = self._live.shelf.names.get((entry.platform, entry.item))
        self._count("event_items", "unknown" if row is None else "known")
        self._count("event_kinds", entry.event)
        if row is not None:
            domain = self._domains.get(row)
            if domain is None:
                domain = self._domains[row] = str(self._live.shelf.table["domain"][row])
            self._count("event_domains", domain)

    def items(self, names: Iterable[Account]) -> None:
        """Count items that just came."""
        for name in names:
            row = self._live.shelf.names.get(name)
            if row is None:
                continue
            title, text = self._live.shelf.table.select("title", "text").row(row)
            said = joined(title, text)
            self._count("item_lengths", length(said))
            self._count("item_scripts", script(said))
            vectors, meaning = self._live.shown.features.vectors, self._reference.meaning
            if meaning is not None and vectors is not None:
                self._count("item_meanings", meaning.bucket(vectors[row]))

    def listed(self, account: Account, layer: str, top: Top) -> None:
        """Count a list."""
        if self._enough("lists", *account):
            return
        self._count("list_layers", layer)
        if top.rows.size:
            self._count("list_ranks", self._reference.rank(int(top.rows[0])))

    def _enough(self, what: str, platform: str, user: str) -> bool:
        """Return whether a person has counted often enough in this window; persons share places."""
        some = self._some[what]
        place = hash((platform, user)) & _PLACES
        if some[place] >= EACH:
            return True
        some[place] += 1
        return False

    def _count(self, name: str, bucket: str) -> None:
        feature = self.features[name]
        counts = feature.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        feature.n += 1
        if feature.n >= feature.size and feature.due(time.time(), self._least(name)):
            self._close(name, feature)

    def _least(self, name: str) -> float:
        return 0.0 if name.startswith("item_") else self._seconds

    def _close(self, name: str, feature: Feature) -> None:
        before = feature.finding.alarm
        first = feature.close(time.time())
        for what, names in (("events", "event_kinds"), ("lists", "list_layers")):
            if name == names:
                self._some[what] = bytearray(_PLACES + 1)
        if first:
            self._kept[name] = feature.reference or {}
            self._write()
        if feature.finding.alarm != before:
            said = "is not what the model was made for" if feature.finding.alarm else "is as before again"
            logger.warning("drift: %s %s", feature.about, said)

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
            if said["version"] != self._reference.version:
                return {}
            return {str(name): {str(k): float(v) for k, v in kept.items()} for name, kept in said["lists"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.error("the reference of lists is damaged: another one is made")
            return {}

    def _write(self) -> None:
        try:
            write_json(self._file, {"version": self._reference.version, "lists": self._kept})
        except Exception as error:
            logger.error("the reference of lists is not kept: %s", type(error).__name__)
