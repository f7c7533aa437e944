"""Questions to somebody of whom little is known, and the list that comes out of the answers."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError, NotFoundError, nearest
from isthmus.evaluate.ranks import top_k
from isthmus.model.base import Places
from isthmus.recommender.consents import Bans, allowed_for
from isthmus.recommender.facade import Recommender
from isthmus.recommender.profile_person import Who, find_person
from isthmus.transfer.ask import Asker, AskSettings
from isthmus.transfer.crowds import Answers, Crowds, CrowdSettings
from isthmus.types import Bools, Ints

#: What an answer may be, and whether it is a yes. ``no``: known and not wanted; ``unknown``: never met.
WORDS: Final = {"yes": True, "no": False, "unknown": False}


class Interview:
    """Asks one person about items, and makes a list of a target domain from the answers.

    Parameters
    ----------
    model : Recommender
        Whose people say which answers go together.
    target : str
        Domain the list is for.
    about : str, optional
        Domain of the items that are asked about; all domains by default.
    who : Who, optional
        Somebody known: what they met counts as answered. Nobody known by default.
    crowds, settings : optional
        How people are grouped and questions chosen.

    Raises
    ------
    NotFoundError
        No such domain or platform.

    Examples
    --------
    >>> from isthmus.data.corpus import Corpus
    >>> from isthmus.data.simulate import town_tables
    >>> from isthmus.split.temporal import Split
    >>> from isthmus.train.fit import FitSettings
    >>> split = Split.make(Corpus.from_tables(town_tables(seed=1, persons=60), name="town"))
    >>> model = Recommender.fit(split, targets=["films"], settings=FitSettings(methods=("popularity",)))
    >>> interview = Interview(model, "films", about="books")
    >>> asked = interview.questions(2)
    >>> asked.columns, asked["domain"].to_list()
    (['platform', 'item', 'title', 'domain', 'bits', 'chance'], ['books', 'books'])
    >>> interview.recommend(asked.with_columns(answer=pl.lit("yes")), k=3).height
    3
    """

    def __init__(
        self,
        model: Recommender,
        target: str,
        *,
        about: str | None = None,
        who: Who | None = None,
        crowds: CrowdSettings | None = None,
        settings: AskSettings | None = None,
    ) -> None:
        if target not in model.targets:
            known = sorted(model.targets)
            hint = nearest(target, known)
            raise NotFoundError(f"the model has no target domain '{target}'{hint}", fix=f"domains: {', '.join(known)}")
        domains = model.items["domain"].unique().sort().to_list()
        if about is not None and about not in domains:
            raise NotFoundError(f"no domain '{about}'{nearest(about, domains)}", fix=f"domains: {', '.join(domains)}")
        self.model, self.target = model, model.targets[target]
        people = model.content.people
        persons = people.events["person"].unique().sort().to_numpy().astype(np.int64)
        everybody = Histories.from_frame(people.events, persons)
        askable = np.ones(model.items.height, bool) if about is None else (model.items["domain"] == about).to_numpy()
        self.asker = Asker(Crowds.of(everybody, model.items.height, crowds), askable, settings)
        self.known, self.met = self._history(-1 if who is None else find_person(model, who)[1])

    def questions(self, k: int = 5, answers: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return the ``k`` items to ask about next, the most telling first.

        Parameters
        ----------
        k : int
            How many; fewer where nothing else is left to ask.
        answers : polars.DataFrame, optional
            What was answered so far: platform, item, answer (yes, no, unknown); of an item asked twice the last counts.

        Returns
        -------
        polars.DataFrame
            platform, item, title, domain, bits (information about the kind of person that the answer is expected to
            give), chance (of a yes).

        Raises
        ------
        InputError
            ``k`` below 1.
        DataError
            A column is missing, or an answer is another word.
        NotFoundError
            An answer is about an item the model does not know.
        """
        if k < 1:
            raise InputError(f"k = {k}", fix="ask at least one question")
        said = self._said(answers)
        asked = self.asker.questions(k, said)
        posterior = self.asker.crowds.posterior(said)
        place = np.searchsorted(self.asker.items, asked)
        bits = self.asker.gain(posterior)[0, place]
        chance = (posterior @ self.asker.crowds.chance[:, asked])[0]
        named: pl.DataFrame = self.model.items.select("platform", "item", "title", "domain")[asked]
        return named.with_columns(bits=pl.Series(bits).round(4), chance=pl.Series(chance).cast(pl.Float64).round(4))

    def recommend(self, answers: pl.DataFrame | None = None, *, k: int = 10) -> pl.DataFrame:
        """Return the list after some answers: platform, item, title, rank, score; what was met or refused is left out.

        Raises
        ------
        InputError, DataError, NotFoundError
            As :meth:`questions`.
        """
        if k < 1:
            raise InputError(f"k = {k}", fix="ask for at least one item")
        said = self._said(answers)
        scores = self.asker.list_scores(self.target, said, self._together(said))
        refused = [] if answers is None else self._numbers(answers.filter(pl.col("answer") == "no")).tolist()
        out = np.isin(self.target.items, [*self.met.tolist(), *said.items[said.yes].tolist(), *refused])
        scores[:, out] = -np.inf
        best = top_k(scores, min(k, self.target.items.size))[0]
        best = best[best >= 0]
        named: pl.DataFrame = self.model.items.select("platform", "item", "title")[self.target.items[best]]
        return named.with_columns(rank=pl.int_range(1, pl.len() + 1), score=pl.Series(scores[0, best]))

    def _history(self, number: int) -> tuple[Histories, Ints]:
        """Return the history of a person that may be used for the target's platforms, and all they met."""
        people = self.model.content.people
        whole = Histories.from_frame(people.events, np.array([max(number, 0)], dtype=np.int64))
        if number < 0:
            return whole.keep(np.zeros(whole.items.size, bool)), np.zeros(0, np.int64)
        places = self.model.features.places or Places.of(self.model.items)
        bans = Bans.of(people.consents, people.accounts, places.platforms)
        denied = bans.of_persons(np.array([number], dtype=np.int64))
        code = places.platform.astype(np.int64)
        allowed: Bools = allowed_for(whole, denied, code, np.unique(code[self.target.items]))
        return whole.keep(allowed), whole.items.astype(np.int64)

    def _said(self, answers: pl.DataFrame | None) -> Answers:
        """Return what is known of the person as answers: what they met is a yes."""
        met = np.unique(self.known.items).astype(np.int32)
        said = Answers(1, np.zeros(met.size, np.int64), met, np.ones(met.size, bool))
        if answers is None or answers.is_empty():
            return said
        lacking = {"platform", "item", "answer"} - set(answers.columns)
        if lacking:
            raise DataError(f"lacks column(s) {', '.join(sorted(lacking))}", where="answers")
        last = answers.unique(["platform", "item"], keep="last", maintain_order=True)
        wrong = [word for word in last["answer"].to_list() if word not in WORDS]
        if wrong:
            raise DataError(f"an answer is '{wrong[0]}'", where="answers", fix=f"use {', '.join(WORDS)}")
        items = self._numbers(last).astype(np.int32)
        yes = np.array([WORDS[word] for word in last["answer"].to_list()], dtype=bool)
        new = ~np.isin(items, met)
        return said.and_then(np.zeros(int(new.sum()), np.int64), items[new], yes[new])

    def _numbers(self, answers: pl.DataFrame) -> Ints:
        """Return the corpus index of each answer's item."""
        index = self.model.items.select("platform", "item").with_row_index("index")
        given = answers.select(pl.col("platform", "item").cast(pl.String))
        found = given.join(index, on=["platform", "item"], how="left", maintain_order="left")
        if found["index"].null_count():
            first = found.filter(pl.col("index").is_null()).row(0)
            raise NotFoundError(f"no item '{first[0]}:{first[1]}'", where="answers", fix="answer what was asked")
        return found["index"].to_numpy().astype(np.int64)

    def _together(self, said: Answers) -> Histories:
        """Return the known history followed by the items with yes."""
        new = said.yes & ~np.isin(said.items, self.known.items)
        items = np.concatenate([self.known.items, said.items[new]])
        weights = np.concatenate([self.known.weights, np.ones(int(new.sum()), np.float32)])
        newest = self.model.content.people.events["ts"].to_physical().max()
        start = int(newest) if isinstance(newest, int) else 0
        ts = np.concatenate([self.known.ts, start + 1 + np.arange(int(new.sum()), dtype=np.int64)])
        return Histories(np.array([0, items.size]), items.astype(np.int32), weights, ts)
