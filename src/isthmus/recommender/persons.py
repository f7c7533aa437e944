"""One person, many platforms: all lists of a person at once, and how consistent lists are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.evaluate.consistency import Consistency, consistency
from isthmus.evaluate.stats import mean_intervals
from isthmus.files import Json
from isthmus.recommender.facade import Recommender
from isthmus.recommender.listing import Lister, Rules
from isthmus.recommender.people import People
from isthmus.recommender.works import find_works
from isthmus.rng import generator
from isthmus.types import Indices, Ints

#: Other persons that a person's consistency is compared with.
OTHERS: Final = 100


@dataclass(frozen=True)
class Question:
    """What lists are asked for.

    Parameters
    ----------
    k : int
        Length of each list.
    target : str, optional
        One domain; all domains of the model by default.
    rules : Rules, optional
        Lists by platform, holding one edition of each work found by :func:`isthmus.recommender.works.find_works`, by
        default.
    events : polars.DataFrame, optional
        What happened since; see :meth:`isthmus.recommender.Recommender.recommend`.
    exclude_seen : bool
        Whether items of the history are left out.
    """

    k: int = 10
    target: str | None = None
    rules: Rules | None = None
    events: pl.DataFrame | None = None
    exclude_seen: bool = True


@dataclass(frozen=True)
class PersonLists:
    """Everything shown to one person.

    Parameters
    ----------
    name : str
        The person.
    accounts : polars.DataFrame
        platform, user.
    met : dict of str to int
        Events known of the person on each platform.
    lists : polars.DataFrame
        domain, item_platform, rank, item, title, score; one list for each domain and platform.
    consistency : dict or None
        score, own, chance, taste, taste_score of this person (:mod:`isthmus.evaluate.consistency`), and kind and number
        of themes; None with fewer than two lists, or nobody to compare with.
    """

    name: str
    accounts: pl.DataFrame
    met: dict[str, int]
    lists: pl.DataFrame
    consistency: Json | None


def accounts_of(
    model: Recommender, *, person: str | None = None, account: str | None = None, events: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return the accounts (platform, user, person, name) of a person, by name or by one ``PLATFORM:USER``.

    An account that nobody knows is a person without events.

    Raises
    ------
    InputError
        Neither or both are given, or the account is not written ``PLATFORM:USER``.
    NotFoundError
        Nobody has that name.
    """
    people = _people(model, events)
    if (person is None) == (account is None):
        raise InputError("who is asked for?", fix="name a person or an account")
    if person is not None:
        return people.person(person)
    platform, colon, user = str(account).partition(":")
    if not (platform and colon and user):
        raise InputError(f"'{account}' names no account", fix="write it as PLATFORM:USER")
    found = people.find(pl.DataFrame({"platform": [platform], "user": [user]}))
    known = people.accounts.filter(pl.col("person") == found["person"][0])
    return known if known.height else found.select(people.accounts.columns)


def person_lists(model: Recommender, accounts: pl.DataFrame, question: Question | None = None) -> PersonLists:
    """Return all lists of one person, made from the events of all accounts together.

    Parameters
    ----------
    model : Recommender
        Fitted.
    accounts : polars.DataFrame
        From :func:`accounts_of`: accounts of one person.
    question : Question, optional
        List length, domain, rules, newer events.
    """
    asked = question or Question()
    rules = _rules(model, asked)
    people = _people(model, asked.events)
    who = accounts.select("platform", "user")
    lists = model.recommend(
        who.head(1), target=asked.target, k=asked.k, exclude_seen=asked.exclude_seen, events=asked.events, rules=rules
    )
    titles = model.items.select("item", "title", item_platform="platform")
    lists = lists.join(titles, on=["item_platform", "item"], how="left", maintain_order="left")
    number = accounts["person"][0]
    mine = people.events.filter(pl.col("person") == number)["item"]
    counts = model.items["platform"].gather(mine).value_counts(sort=True).sort("platform")
    return PersonLists(
        name=str(accounts["name"][0]),
        accounts=who,
        met=dict(counts.iter_rows()),
        lists=lists.select("domain", "item_platform", "rank", "item", "title", "score"),
        consistency=_of_one(model, people, int(number), replace(asked, rules=rules)),
    )


def model_consistency(
    model: Recommender, question: Question | None = None, *, people: int = 500, seed: int = 0
) -> Json:
    """Return how consistent the lists of some persons with events are.

    Parameters
    ----------
    model : Recommender
        Fitted, with lists on two platforms or more.
    question : Question, optional
        List length, rules.
    people : int
        Persons drawn, at most.
    seed : int
        For the draw.

    Returns
    -------
    dict
        The means of :meth:`isthmus.evaluate.consistency.Consistency.mean`, gap (own - chance) with low and high (95 %
        bootstrap over persons), themes (how many, of which kind), places (domain and platform of each list).

    Raises
    ------
    InputError
        The model lists items of one platform only, or nothing is known of what items are about.
    """
    asked = question or Question()
    asked = replace(asked, rules=_rules(model, asked))
    known = _people(model, asked.events)
    rng = generator(seed, "consistency")
    everybody = known.events["person"].unique().sort().to_numpy().astype(np.int64)
    persons = np.sort(rng.permutation(everybody)[:people])
    lister = _lister(model, known, asked)
    if len(lister.shelves) < 2 or not lister.themes.names:
        raise InputError(
            f"{len(lister.shelves)} list(s) a person, {len(lister.themes.names)} themes: nothing to compare",
            fix="fit a model with targets on two platforms whose items have categories or texts",
        )
    found = _measured(lister, known, persons, rng)
    gap = (found.own - found.chance)[:, None]
    _, low, high = mean_intervals(gap, rng=rng)
    return {
        **found.mean(),
        "gap": float(np.nanmean(gap)) if np.isfinite(gap).any() else float("nan"),
        "low": float(low[0]),
        "high": float(high[0]),
        "themes": len(lister.themes.names),
        "kind": lister.themes.kind,
        "places": [f"{domain} on {platform}" for domain, platform in _places(lister)],
    }


def _of_one(model: Recommender, people: People, number: int, asked: Question) -> Json | None:
    lister = _lister(model, people, asked)
    others = people.events["person"].unique().sort().to_numpy().astype(np.int64)
    others = others[others != number]
    if others.size == 0 or len(lister.shelves) < 2 or not lister.themes.names:
        return None
    rng = generator(0, "consistency", number)
    persons = np.sort(np.append(rng.permutation(others)[:OTHERS], number))
    found = _measured(lister, people, persons, rng)
    mine = int(np.searchsorted(persons, number))
    names = ("score", "own", "chance", "taste_score", "taste")
    values = {name: float(getattr(found, name)[mine]) for name in names}
    return {**values, "themes": len(lister.themes.names), "kind": lister.themes.kind, "others": persons.size - 1}


def _measured(lister: Lister, people: People, persons: Ints, rng: np.random.Generator) -> Consistency:
    frame = lister.lists(persons)
    themes, items = lister.themes, lister.content.items
    platform = items["platform"].gather(frame["index"])
    lists, carried = [], []
    for shelf, (domain, name) in zip(lister.shelves, _places(lister), strict=True):
        own = frame.filter((pl.col("domain") == domain) & (platform == name))
        shown: Indices = np.full((persons.size, lister.k), -1, np.int32)
        shown[np.searchsorted(persons, own["person"].to_numpy()), own["rank"].to_numpy() - 1] = own["index"].to_numpy()
        lists.append(themes.of_lists(shown))
        carried.append(themes.carried(lister.content.targets[domain].items[shelf.columns]))
    tastes = themes.tastes(Histories.from_frame(people.events, persons))
    return consistency(lists, carried, tastes, rng=rng)


def _places(lister: Lister) -> list[tuple[str, str]]:
    """Return domain and platform of each list."""
    targets, platform = lister.content.targets, lister.content.items["platform"]
    return [
        (shelf.domain, str(platform[int(targets[shelf.domain].items[shelf.columns[0]])])) for shelf in lister.shelves
    ]


def _lister(model: Recommender, people: People, asked: Question) -> Lister:
    rules = replace(asked.rules or Rules(), by_platform=True)
    domains = sorted(model.targets) if asked.target is None else [asked.target]
    return Lister(model.content, people, rules, k=asked.k, exclude_seen=asked.exclude_seen, domains=domains)


def _rules(model: Recommender, asked: Question) -> Rules:
    return asked.rules if asked.rules is not None else Rules(by_platform=True, works=find_works(model.items))


def _people(model: Recommender, events: pl.DataFrame | None) -> People:
    known = model.content.people
    return known if events is None else known.after(events, model.items)
