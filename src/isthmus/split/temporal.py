"""What may be learned from, what chooses, and what is measured: one global time cut, or each person's last events."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.pseudonyms import hide
from isthmus.errors import ArtefactError, DataError, InputError
from isthmus.files import Json, new_folder, read_json, write_json
from isthmus.rng import generator
from isthmus.types import PARTS, Protocol

FORMAT: Final = 2
CARD: Final = "split.json"
COLUMNS: Final = ("person", "item", "event", "weight", "value", "ts", "part")
TRAIN, VALID, TEST, CONTEXT = range(len(PARTS))


@dataclass(frozen=True)
class HeldOut:
    """Persons whose events are never learned from: their last event is the target, the rest only context.

    Parameters
    ----------
    valid, test : polars.DataFrame
        Accounts, columns platform and user.
    """

    valid: pl.DataFrame
    test: pl.DataFrame

    @property
    def digest(self) -> str:
        """Hash of who is held out for what."""
        parts = [
            frame.select("platform", "user").unique().sort("platform", "user") for frame in (self.valid, self.test)
        ]
        return hashlib.sha256("\x1e".join(part.write_csv() for part in parts).encode()).hexdigest()[:12]


class Split:
    """The events of a corpus, each in one part.

    Attributes
    ----------
    corpus : Corpus
        The corpus that was split.
    events : polars.DataFrame
        person (u32), item (u32), event (u8: place in ``EVENTS``), weight (f32), value (f64), ts, part (u8: 0 train,
        1 valid, 2 test, 3 context: may be shown as history, never learned from); sorted by person and time.
    card : dict
        The protocol card: protocol, cuts, shares, counts, fingerprint.

    Examples
    --------
    >>> from isthmus.data.simulate import town_tables
    >>> corpus = Corpus.from_tables(town_tables(seed=1, persons=50), name="town")
    >>> split = Split.make(corpus, valid_share=0.1, test_share=0.1)
    >>> split.card["protocol"]
    'time'
    """

    def __init__(self, corpus: Corpus, events: pl.DataFrame, card: Json) -> None:
        self.corpus = corpus
        self.events = events
        self.card = card

    @classmethod
    def make(
        cls,
        corpus: Corpus,
        *,
        protocol: Protocol = "time",
        valid_share: float = 0.1,
        test_share: float = 0.1,
        cuts: Sequence[datetime] = (),
        held_out: HeldOut | None = None,
    ) -> Split:
        """Split ``corpus``.

        Parameters
        ----------
        protocol : {"time", "leave-last"}
            ``"time"``: one cut over all platforms; events at a cut and later are on its later side, so equal times
            are never torn apart. ``"leave-last"``: in each domain the last event of a person is test and the one
            before it valid.
        valid_share, test_share : float
            Shares of all events, newest last. A test share of 0 leaves no test part. Under ``leave-last`` only
            whether a share is 0 counts.
        cuts : sequence of datetime
            With ``"time"``: start of test, or start of valid and start of test, instead of the shares.
        held_out : HeldOut, optional
            With ``"leave-last"``: judge these persons only, by the last event of their whole history.

        Raises
        ------
        InputError
            Impossible shares or cuts; a time cut over a platform whose events have an order and no dates.
        """
        _check_shares(valid_share, test_share)
        events = corpus.interactions()
        if events.height == 0:
            raise DataError("no event says anything about taste", where=corpus.name, fix="check the event mapping")
        card: Json = {"protocol": protocol, "corpus": corpus.name, "fingerprint": corpus.fingerprint}
        if protocol == "time":
            if held_out is not None:
                raise InputError("held-out persons need the protocol leave-last")
            starts = _cuts(corpus, events, (valid_share, test_share), cuts)
            card["cuts"] = {name: start.isoformat() for name, start in starts.items()}
            part = _by_time(starts)
        elif protocol == "leave-last":
            if cuts:
                raise InputError("cuts need the protocol time", fix="drop --cut")
            part = (
                _by_place(corpus, valid_share > 0, test_share > 0) if held_out is None else _by_person(corpus, held_out)
            )
            card["held out"] = held_out.digest if held_out else ""
        else:
            raise InputError(f"no protocol '{protocol}'", fix="use time or leave-last")
        parted = events.with_columns(part=part.cast(pl.UInt8))
        if not (parted["part"] == TRAIN).any():
            raise InputError("nothing is left to learn from", where=corpus.name, fix="cut later or take smaller shares")
        return cls(corpus, parted, {**card, **_counts(parted)})

    def save(self, path: str | Path) -> Split:
        """Write the split to folder ``path``, whole or not at all. The corpus must have been saved before."""
        path = Path(path)
        if self.corpus.path is None:
            raise InputError("the corpus of this split is only in memory", fix="save the corpus first")
        with new_folder(path) as folder:
            self.events.write_parquet(folder / "events.parquet")
            where = os.path.relpath(self.corpus.path.resolve(), path.resolve())
            write_json(folder / CARD, {"format": FORMAT, "corpus_path": where, "card": self.card})
        return self

    @classmethod
    def open(cls, path: str | Path) -> Split:
        """Return the split in folder ``path`` together with its corpus.

        Raises
        ------
        ArtefactError
            No split there, damaged, another format version, or the corpus was changed since.
        """
        path = Path(path)
        content = read_json(path / CARD, what="split")
        if content.get("format") != FORMAT:
            raise ArtefactError(f"split format {content.get('format')}, this version reads {FORMAT}", where=path)
        card, where = content.get("card"), content.get("corpus_path")
        if not isinstance(card, dict) or not isinstance(where, str):
            raise ArtefactError("split.json is damaged", where=path, fix="split it again")
        corpus = Corpus.open(path / where)
        if corpus.fingerprint != card.get("fingerprint"):
            raise ArtefactError("the corpus was changed after this split", where=path, fix="split it again")
        try:
            events = pl.read_parquet(path / "events.parquet").select(COLUMNS)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ArtefactError(f"events.parquet is damaged: {error}", where=path, fix="split it again") from error
        return cls(corpus, events, card)

    def known(self, part: int) -> pl.DataFrame:
        """Return the events that may be known when part ``part`` (VALID or TEST) is predicted."""
        return self.events.filter((pl.col("part") < part) | (pl.col("part") == CONTEXT))

    def few_shot(self, domain: str, *, keep: int, share: float, seed: int) -> Split:
        """Return a split in which a random share of the persons kept only their newest events of one domain.

        A chosen person is asked about the domain in one part only, drawn where both have events of it: else the
        validation events would be known when test is predicted, and nobody would be cold there.

        Parameters
        ----------
        domain : str
            The target domain.
        keep : int
            Events of it that each chosen person keeps in training; 0 makes them cold there.
        share : float
            Share of the persons that are chosen, in (0, 1].
        seed : int
            Which persons.

        Raises
        ------
        InputError
            ``keep`` below 0 or an impossible share.
        """
        self.corpus.require_domain(domain)
        if keep < 0 or not 0 < share <= 1:
            raise InputError(f"keep {keep} and share {share} are impossible", fix="keep from 0, share in (0, 1]")
        rng = generator(seed, "few-shot", domain)
        chosen = pl.Series(rng.random(len(self.corpus.persons)) < share)
        other = pl.Series(np.where(rng.random(len(self.corpus.persons)) < 0.5, VALID, TEST))
        part, mine = pl.col("part"), pl.col("mine")
        events = self.events.with_columns(
            mine=(self._domains() == domain) & chosen.gather(self.events["person"]),
            other=other.gather(self.events["person"]),
        )
        both = ((mine & (part == VALID)).any() & (mine & (part == TEST)).any()).over("person")
        place = (mine & (part == TRAIN)).reverse().cum_sum().reverse().over("person")
        unasked = mine & both & (part == pl.col("other"))
        events = events.filter(~unasked & ~(mine & (part == TRAIN) & (place > keep))).drop("mine", "other")
        card = {**self.card, "few-shot": {"domain": domain, "keep": keep, "share": share, "seed": seed}}
        return Split(self.corpus, events, {**card, **_counts(events)})

    def only(self, domain: str) -> Split:
        """Return the split without any event of other domains: what a system without a source may know."""
        self.corpus.require_domain(domain)
        events = self.events.filter(self._domains() == domain)
        return Split(self.corpus, events, {**self.card, "only": domain, **_counts(events)})

    def thinned(self, domain: str, *, share: float, seed: int) -> Split:
        """Return a split in which only a random share of the persons teaches, and chooses, in ``domain``.

        What the others did there before test becomes context: it may be shown as their history, and is neither
        learned from nor a validation target. The test part stays as it is. Shares of one seed are nested: who teaches
        at 1 % teaches at 10 % too.

        Parameters
        ----------
        domain : str
            The target domain.
        share : float
            Share of the persons with training events in the domain, in [0, 1]; 0 is zero-shot.
        seed : int
            Which persons.

        Raises
        ------
        InputError
            An impossible share.
        """
        self.corpus.require_domain(domain)
        if not 0 <= share <= 1:
            raise InputError(f"share {share} is impossible", fix="take a share in [0, 1]")
        chosen = pl.Series(generator(seed, "thinned", domain).random(len(self.corpus.persons)) < share)
        hidden = (self._domains() == domain) & ~chosen.gather(self.events["person"]) & (self.events["part"] != TEST)
        part = pl.when(hidden).then(CONTEXT).otherwise("part").cast(pl.UInt8)
        events = self.events.with_columns(part=part)
        card = {**self.card, "thinned": {"domain": domain, "share": share, "seed": seed}}
        return Split(self.corpus, events, {**card, **_counts(events)})

    def _domains(self) -> pl.Series:
        return self.corpus.items["domain"].gather(self.events["item"])


def _check_shares(valid_share: float, test_share: float) -> None:
    if not (0 < valid_share < 1 and 0 <= test_share < 1 and valid_share + test_share < 1):
        raise InputError(
            f"shares valid {valid_share} and test {test_share} are impossible",
            fix="valid above 0, test 0 or more, together below 1",
        )


def _cuts(
    corpus: Corpus, events: pl.DataFrame, shares: tuple[float, float], cuts: Sequence[datetime]
) -> dict[str, datetime]:
    """Return the start of valid and, if there is one, of test."""
    if corpus.order_only:
        raise InputError(
            f"platform(s) {', '.join(corpus.order_only)} have an order and no dates: no time cut is possible",
            where=corpus.name,
            fix="use --protocol leave-last",
        )
    ts = events["ts"].sort()
    given = sorted(cut if cut.tzinfo else cut.replace(tzinfo=UTC) for cut in cuts)
    if len(given) > 2:
        raise InputError(f"{len(given)} cuts", fix="give the start of test, or the starts of valid and test")
    if len(given) == 2:
        starts = {"valid": given[0], "test": given[1]}
    else:
        valid_share, test_share = shares
        starts = {}
        if given:
            starts["test"] = given[0]
        elif test_share:
            starts["test"] = _quantile(ts, 1 - test_share)
        earlier = ts.filter(ts < starts["test"]) if starts else ts
        share = valid_share * len(ts) / max(len(earlier), 1)
        if share >= 1 or earlier.is_empty():
            raise InputError("nothing is left to learn from before the cut", where=corpus.name, fix="cut later")
        starts["valid"] = _quantile(earlier, 1 - share)
    if not events["ts"].min() < starts["valid"]:  # type: ignore[operator]
        raise InputError(
            f"no event is older than the cut {starts['valid'].isoformat()}", where=corpus.name, fix="cut later"
        )
    return starts


def _quantile(ts: pl.Series, share: float) -> datetime:
    return cast("datetime", ts[min(int(share * len(ts)), len(ts) - 1)])


def _by_time(starts: dict[str, datetime]) -> pl.Expr:
    part = pl.when(pl.col("ts") < starts["valid"]).then(TRAIN)
    if "test" not in starts:
        return part.otherwise(VALID)
    return part.when(pl.col("ts") < starts["test"]).then(VALID).otherwise(TEST)


def _by_place(corpus: Corpus, valid: bool, test: bool) -> pl.Expr:
    """Return the part by the place from the end of each person's events in a domain (the oldest always trains)."""
    wanted = [part for part, present in ((TEST, test), (VALID, valid)) if present]
    domain = pl.lit(corpus.items["domain"]).gather(pl.col("item").cast(pl.Int64))
    group = ["person", domain.alias("domain")]
    from_end = pl.int_range(pl.len()).reverse().over(group)
    from_start = pl.int_range(pl.len()).over(group)
    part = pl.lit(TRAIN)
    for place, name in enumerate(wanted):
        part = pl.when((from_end == place) & (from_start > 0)).then(name).otherwise(part)
    return part


def _by_person(corpus: Corpus, held_out: HeldOut) -> pl.Expr:
    """Return the part by person: a held-out person's last event is the target, the rest is context."""
    kinds = pl.concat(
        [accounts.select("platform", "user").with_columns(kind=pl.lit(kind)) for accounts, kind in
         ((held_out.valid, VALID), (held_out.test, TEST))]
    )  # fmt: skip
    kinds = hide(kinds, corpus.pseudonyms)
    persons = pl.DataFrame({"person": corpus.persons}).with_row_index("index")
    found = corpus.identities.join(kinds, on=["platform", "user"]).join(persons, on="person")
    unknown = kinds.join(corpus.identities, on=["platform", "user"], how="anti")
    if unknown.height:
        first = unknown.row(0)
        raise DataError(f"{unknown.height} held-out account(s) have no events, first {first[0]}:{first[1]}")
    clash = found.group_by("index").agg(pl.col("kind").n_unique()).filter(pl.col("kind") > 1)
    if clash.height:
        raise DataError(f"{clash.height} person(s) are held out for valid and for test")
    kind = pl.Series("kind", [TRAIN] * len(persons), dtype=pl.Int32).scatter(found["index"], found["kind"])
    of_event = pl.lit(kind).gather(pl.col("person").cast(pl.Int64))
    last = pl.int_range(pl.len()).reverse().over("person") == 0
    return pl.when(of_event == TRAIN).then(TRAIN).when(last).then(of_event).otherwise(CONTEXT)


def _counts(events: pl.DataFrame) -> Json:
    sizes = dict(events.group_by("part").len().iter_rows())
    return {"events": {name: int(sizes.get(part, 0)) for part, name in enumerate(PARTS)}}
