"""State is a projection of the log; the quick scorer says what the blend says; lists equal the library's."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.small_service import account, item, recommender, served

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.model.base import Features
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender import Recommender
from isthmus.recommender.serving import Scorer
from isthmus.service.lists.items import Filters, Shelf
from isthmus.service.lists.live import Live, LiveRules, Version
from isthmus.service.lists.state import State
from isthmus.service.lock.limits import Buckets
from isthmus.service.log.records import Entry, Record, tombstone
from isthmus.split.temporal import VALID, Split
from isthmus.train.fit import Target, training_data
from isthmus.train.methods import make

SECRET = b"s" * 32
NOW = 1_800_000_000_000_000


def live(*entries: Entry) -> Live:
    records = [Record(n, entry) for n, entry in enumerate(entries, start=1)]
    return Live.build(recommender(), Version("m", "v"), [records], SECRET, rules=LiveRules())


def state(*entries: Entry) -> State:
    shelf = Shelf(recommender().items, set())
    made = State(recommender().content.people, shelf.names, shelf.platforms, SECRET)
    for entry in entries:
        made.apply(entry)
    return made


def click(number: int, who: dict[str, str], what: dict[str, str], ts: int = 0, event: str = "click") -> Entry:
    return Entry(f"e{number}", "event", who["platform"], who["user"], what["item"], event, ts=NOW + ts)


NEW = {"platform": "north", "user": "somebody new 新"}
WHO = (account(0), account(1), account(2, "south"), NEW)
LATER = {"platform": "north", "item": "later"}


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    found = []
    for number in range(draw(st.integers(1, 12))):
        who = draw(st.sampled_from(WHO))
        domain = "source" if who["platform"] == "north" else "target"
        what = draw(st.sampled_from([item(1, domain), item(2, domain), LATER]))
        found.append(click(number, who, what, draw(st.integers(-3, 3)), draw(st.sampled_from(["click", "impression"]))))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(log: list[Entry], rng: object) -> None:
    mixed = log.copy()
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    first, second = state(*log), state(*mixed)
    assert first.digest() == second.digest()
    assert first.waiting == sum(entry.item == "later" and entry.event == "click" for entry in log)


def test_the_digest_sees_what_differs() -> None:
    digests = {
        state().digest(),
        state(click(1, NEW, item(1))).digest(),
        state(click(1, NEW, item(2))).digest(),
        state(click(1, NEW, item(1), event="purchase")).digest(),
        state(click(1, WHO[0], item(1))).digest(),
        state(click(1, NEW, LATER)).digest(),
        state(click(1, NEW, item(1)), click(2, NEW, item(1))).digest(),
    }
    assert len(digests) == 7


def test_an_event_the_model_was_made_from_does_not_count_twice() -> None:
    known = state()
    person = known.person(**WHO[0])
    mine = recommender().content.people.events[known.learned(person)].with_columns(pl.col("ts").to_physical())
    deeds = mine.select("item", "ts").iter_rows()
    row, ts = next((row, ts) for row, ts in deeds if known.platforms[row] == "north")
    name = recommender().items["item"][row]
    events = recommender().content.people.events.filter((pl.col("person") == person) & (pl.col("item") == row))
    word = ["view", "click", "cart", "purchase", "rate", "play", "like", "comment", "share"][events["event"][0]]
    before = known.batch([person]).items.size
    known.apply(Entry("x", "event", "north", WHO[0]["user"], name, word, ts=ts))
    assert known.batch([person]).items.size == before
    known.apply(Entry("y", "event", "north", WHO[0]["user"], name, word, ts=ts + 1))
    assert known.batch([person]).items.size == before + 1


def test_an_erased_person_is_nobody_also_after_a_replay() -> None:
    who = WHO[0]
    both = list(state().linked[state().person(**who)])
    assert len(both) == 2
    gone = state(click(1, who, item(1)))
    gone.forget(both)
    stones = json.dumps({"stones": [tombstone(SECRET, *one) for one in both]})
    again = state(Entry("z", "erase", body=stones))
    assert gone.digest() == again.digest() != state().digest()
    assert gone.person(**who) is None
    afresh = state(Entry("z", "erase", body=stones), click(2, who, item(3)))
    assert afresh.batch([afresh.person(**who)]).items.size == 1, "as somebody new"
    one = state()
    one.forget([both[0]])
    left = one.batch([one.person(*both[1])])
    assert {one.platforms[row] for row in left.items} == {both[1][0]}, "the other platform keeps its events"


def test_lists_equal_those_of_the_library(tmp_path: Path) -> None:
    people = recommender().content.people.accounts.sort("platform", "user").select("platform", "user")
    log = pl.DataFrame([{**item(4), "user": account(3)["user"]}, {**item(7), "user": NEW["user"]}])
    log = log.with_columns(event=pl.lit("like"))
    asked = pl.concat([people, pl.DataFrame([NEW])])
    wanted = recommender().recommend(asked, k=7, events=log)

    async def test(client: object, service: object) -> None:
        events = [{**row, "ts": "2030-01-01T00:00:00Z"} for row in log.to_dicts()]
        done = await client.post("/v1/events", json={"events": events})  # type: ignore[attr-defined]
        assert done.json()["accepted"] == 2
        body = {"persons": asked.to_dicts(), "k": 7}
        lists = (await client.post("/v1/recommend", json=body)).json()["lists"]  # type: ignore[attr-defined]
        assert len(lists) == 2 * asked.height
        for one in lists:
            expected = wanted.filter(platform=one["platform"], user=one["user"], domain=one["domain"])
            assert [place["item"] for place in one["items"]] == expected["item"].to_list()
            assert one["layer"] == "model"

    served(tmp_path, test, consent="assumed")  # as in the library


@pytest.mark.parametrize("new", [False, True])
def test_the_quick_scorer_says_what_the_blend_says(new: bool) -> None:
    world = twin_world(2, replace(WORLD, persons=50, items=40))
    split = Split.make(Corpus.from_tables(world.tables, name="w"), valid_share=0.2, test_share=0.1)
    features = recommender().content.readers.read(split.corpus.items)
    vectors = np.random.default_rng(0).standard_normal((split.corpus.items.height, 8)).astype(np.float32)
    data = training_data(split, VALID, "target", Features(features.text, vectors, features.places))
    methods = [make(name, {}).fit(data) for name in ("popularity", "recent", "knn", "ease", "tfidf", "text")]
    rng = np.random.default_rng(1)
    weights = {cohort: tuple(rng.random(len(methods)) * (rng.random(len(methods)) > 0.3)) for cohort in COHORTS}
    fresh = np.zeros(data.target.size, dtype=bool)
    fresh[:5] = new
    target = Target("target", data.target, fresh, methods, Blend(tuple(m.name for m in methods), weights))
    for persons in (0, 1, 2, 40):
        some = data.histories.take(np.arange(persons)) if persons else Histories.of([[]])
        quick, slow = Scorer(target).score(some), target.blend.score(methods, some, fresh)
        assert np.abs(slow).max(initial=0) > 0.1 or not persons
        np.testing.assert_allclose(quick, slow, atol=2e-4)


def test_what_may_be_listed_now() -> None:
    day = timedelta(days=1)
    now = datetime(2026, 1, 10, tzinfo=UTC)
    table = (
        recommender()
        .items.head(4)
        .with_columns(
            available_from=pl.Series([None, now + day, None, None], dtype=pl.Datetime("us", "UTC")),
            available_until=pl.Series([None, None, now - day, now + 3 * day], dtype=pl.Datetime("us", "UTC")),
            categories=pl.Series([["a", "b"], ["b"], [], None], dtype=pl.List(pl.String)),
            lang=pl.Series(["en", "zh", None, "zh"]),
        )
    )
    shelf = Shelf(table, set())
    rows = np.arange(4, dtype=np.int32)

    def shown(days: float) -> list[bool]:
        found = shelf.listable(rows, round((now + days * day).timestamp() * 1e6))
        assert found is not None
        return found.tolist()

    assert shown(0) == [True, False, False, True]
    assert shown(2) == [True, True, False, True]
    assert shown(4) == [True, True, False, False]
    assert shelf.changes(round(now.timestamp() * 1e6)) == round((now + day).timestamp() * 1e6)
    shelf.show((table["platform"][0], table["item"][0]), shown=False)
    assert shown(2) == [False, True, False, True]
    assert shelf.filtered(Filters(categories=("b", "zzz"))).tolist() == [True, True, False, False]
    assert shelf.filtered(Filters(langs=("zh",))).tolist() == [False, True, False, True]
    assert shelf.filtered(Filters(platforms=("nowhere",))).tolist() == [False] * 4
    assert (
        Shelf(recommender().items.with_columns(available_from=None).cast(table.schema), set()).listable(rows, 1) is None
    )


def test_a_bucket_gives_its_burst_then_its_rate_to_each() -> None:
    now = [0.0]
    buckets = Buckets(10.0, 20, clock=lambda: now[0])
    taken = []
    for step in range(1000):
        now[0] = step / 100
        taken.append(not buckets.take("a"))
    assert 118 <= sum(taken) <= 122
    assert sum(taken[:20]) == 20
    assert not buckets.take("b")
    assert Buckets(0.0, 1).take("a") == Buckets(0.0, 1).take("a") == 0


def test_consents_of_the_model_hold() -> None:
    base = recommender()
    both = base.content.people.accounts.filter(pl.len().over("person") == 2).sort("person")
    name = both["name"][0]
    said = pl.DataFrame(
        {
            "person": [name],
            "platform": [None],
            "user": [None],
            "from_platform": ["north"],
            "to_platform": ["*"],
            "allowed": [False],
        },
        schema=base.content.people.consents.schema,
    )
    people = replace(base.content.people, consents=said)
    strict = Live.build(
        Recommender(replace(base.content, people=people)), Version("m", "v"), [], SECRET, rules=LiveRules()
    )
    person = strict.state.person(*both.select("platform", "user").row(0))
    heard = strict.heard("target", strict.ask([person, None]))
    assert {strict.state.platforms[row] for row in heard.items} == {"south"}
    assert len(strict.state.batch([person]).items) > heard.items.size
    assert strict.heard("source", strict.ask([person])).items.size == strict.state.batch([person]).items.size


def test_nothing_is_left_of_somebody_who_came_and_was_erased_again_and_again() -> None:
    known = state()
    sizes = set()
    for number in range(20):
        known.apply(click(3 * number, NEW, item()))
        known.apply(click(3 * number + 1, NEW, LATER))
        known.apply(click(3 * number + 2, NEW, item(1), event="impression"))
        known.forget([(NEW["platform"], NEW["user"])])
        sizes.add(tuple(len(held) for held in vars(known).values() if isinstance(held, (dict, list))))
    assert len(sizes) == 1
