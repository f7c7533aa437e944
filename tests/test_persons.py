"""One person on many platforms: the same taste everywhere, one edition of a work, and what is forbidden is not used."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.small import corpus, day, events

from isthmus.data.corpus import Corpus
from isthmus.data.identity import Links, resolve
from isthmus.data.simulate import WORLD, twin_world, unrelated_world
from isthmus.data.simulate.worlds import World
from isthmus.errors import ArtefactError, DataError, InputError, NotFoundError
from isthmus.recommender import Recommender
from isthmus.recommender.consents import conform_consents, read_consents, with_consents, write_consents
from isthmus.recommender.listing import Rules
from isthmus.recommender.persons import Question, accounts_of, model_consistency, person_lists
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings

PLAN = replace(WORLD, persons=200, items=90)
QUICK = FitSettings(methods=("popularity", "knn", "tfidf", "ease"), budget=1.0, seed=1)
APART = Rules(by_platform=True)


@cache
def scene(kind: str) -> tuple[World, Split, Recommender]:
    """Return a world in which half of the people never used the south, and the model of both platforms."""
    world = (twin_world if kind == "twin" else unrelated_world)(1, PLAN)
    split = Split.make(Corpus.from_tables(world.tables, name=kind)).few_shot("target", keep=0, share=0.5, seed=2)
    return world, split, Recommender.fit(split, settings=QUICK)


@pytest.fixture(scope="module")
def model() -> Recommender:
    return scene("twin")[2]


def met_on(model: Recommender) -> pl.DataFrame:
    """Return person (number), name, north, south: events known."""
    people = model.content.people
    platform = model.items["platform"].gather(people.events["item"])
    counts = people.events.select("person", platform=platform).group_by("person").agg(
        north=(pl.col("platform") == "north").sum(), south=(pl.col("platform") == "south").sum()
    )  # fmt: skip
    return counts.join(people.accounts.select("person", "name").unique(), on="person").sort("person")


def both(model: Recommender, number: int = 0) -> str:
    """Return the name of somebody with events on both platforms."""
    return str(met_on(model).filter((pl.col("north") > 3) & (pl.col("south") > 3))["name"][number])


def planted(kind: str) -> tuple[float, float]:
    """Return for people who never used the south the share of their own themes in their list there, and of others'."""
    world, _, model = scene(kind)
    cold = met_on(model).filter((pl.col("south") == 0) & (pl.col("north") > 3))
    assert cold.height > 30
    accounts = model.content.people.accounts.join(cold, on="name", how="semi").filter(platform="north")
    lists = model.recommend(accounts.select("platform", "user"), target="target", k=10)
    shown = lists.join(world.themes.rename({"platform": "item_platform"}), on=["item_platform", "item"])
    shown = shown.join(accounts, on=["platform", "user"]).select("name", "theme")
    tastes = world.tastes.filter(domain="target").select("person", "theme").unique()
    names = accounts["name"].unique().sort()
    others = pl.DataFrame({"name": names, "other": names.gather((np.arange(len(names)) + 7) % len(names))})
    own = shown.join(tastes, left_on=["name", "theme"], right_on=["person", "theme"], how="semi").height
    strange = shown.join(others, on="name").join(
        tastes, left_on=["other", "theme"], right_on=["person", "theme"], how="semi"
    )
    return own / shown.height, strange.height / shown.height


def test_a_planted_taste_is_seen_on_a_platform_the_person_never_used() -> None:
    own, others = planted("twin")
    assert 0.5 < own <= 1
    assert own > 2 * others


def test_a_taste_that_has_nothing_to_do_with_it_is_not() -> None:
    own, others = planted("unrelated")
    assert 0.6 * others < own < 1.5 * others


def test_lists_of_one_taste_are_consistent_and_those_of_two_tastes_are_not() -> None:
    twin, unrelated = (model_consistency(scene(kind)[2], Question(rules=APART)) for kind in ("twin", "unrelated"))
    assert 0.3 < twin["score"] <= 1
    assert twin["low"] > 0.1
    assert abs(unrelated["score"]) < 0.25
    assert twin["score"] > unrelated["score"] + 0.2
    assert twin["taste_score"] > 0.3
    assert twin["places"] == ["source on north", "target on south"]
    assert twin["kind"] == "categories"


def test_a_person_is_found_by_name_and_by_every_account(model: Recommender) -> None:
    name = both(model)
    accounts = accounts_of(model, person=name)
    assert accounts["platform"].to_list() == ["north", "south"]
    for platform, user in accounts.select("platform", "user").rows():
        assert accounts_of(model, account=f"{platform}:{user}").equals(accounts)
    found = person_lists(model, accounts, Question(k=3))
    assert found.name == name
    assert set(found.met) == {"north", "south"}
    assert found.lists.group_by("domain", "item_platform", maintain_order=True).len()["len"].to_list() == [3, 3]
    assert found.lists["title"].null_count() == 0
    assert found.consistency is not None
    assert -1 < found.consistency["score"] <= 1
    again = person_lists(model, accounts_of(model, account=f"south:{accounts['user'][1]}"), Question(k=3))
    assert again.lists.equals(found.lists)
    assert again.consistency == found.consistency


def test_who_is_nobody_is_said(model: Recommender) -> None:
    with pytest.raises(NotFoundError, match=r"no person 'person-9999'.*did you mean"):
        accounts_of(model, person="person-9999")
    with pytest.raises(InputError, match="names no account"):
        accounts_of(model, account="north")
    with pytest.raises(InputError, match="who is asked for"):
        accounts_of(model)
    with pytest.raises(InputError, match="who is asked for"):
        accounts_of(model, person="a", account="b:c")


def test_an_account_nobody_knows_gets_lists_and_its_first_events_count(model: Recommender) -> None:
    stranger = accounts_of(model, account="mars:谁:1")
    empty = person_lists(model, stranger, Question(k=4))
    assert (empty.name, empty.met, empty.lists.height) == ("mars:谁:1", {}, 8)
    item = model.items.filter(platform="north")["item"][0]
    log = pl.DataFrame({"platform": ["north"], "user": ["new"], "item": [item]})
    known = accounts_of(model, account="north:new", events=log)
    assert person_lists(model, known, Question(k=4, events=log)).met == {"north": 1}


def bans(name: str, start: str = "north", stop: str = "south", *, allowed: bool = False) -> pl.DataFrame:
    row = {"person": name, "from_platform": start, "to_platform": stop, "allowed": str(allowed)}
    return pl.DataFrame([row])


def without(model: Recommender, name: str, platform: str) -> Recommender:
    """Return the same model when the person never did anything on ``platform``."""
    people = model.content.people
    number = people.person(name)["person"][0]
    there = model.items["platform"].gather(people.events["item"]) == platform
    kept = people.events.filter(~(there & (people.events["person"] == number)))
    return Recommender(replace(model.content, people=replace(people, events=kept)))


def south(model: Recommender, name: str, rules: Rules, log: pl.DataFrame | None = None) -> pl.DataFrame:
    question = Question(k=10, rules=rules, events=log)
    return person_lists(model, accounts_of(model, person=name), question).lists.filter(item_platform="south")


def alike_titles(model: Recommender, name: str) -> pl.DataFrame:
    """Return pairs that make each item the person met in the north one work with an item of the south."""
    people = model.content.people
    mine = people.events.filter(pl.col("person") == people.person(name)["person"][0])["item"].unique().sort()
    north = model.items[mine].filter(platform="north")["item"]
    others = model.items.filter(platform="south")["item"].head(len(north))
    return pl.DataFrame({"platform": "north", "item": north, "other_platform": "south", "other_item": others})


@pytest.mark.parametrize("more", [{}, {"calibrate": 0.6}, {"works": True}, {"works": True, "calibrate": 0.3}])
def test_with_a_ban_the_list_is_that_of_a_person_without_those_events(
    model: Recommender, more: dict[str, object]
) -> None:
    differ = 0
    for number in range(4):
        name = both(model, number)
        extra = {**more, **({"works": alike_titles(model, name)} if "works" in more else {})}
        free, banned = replace(APART, **extra), replace(APART, consents=bans(name), **extra)
        # under a ban a list yields to no list it may not know of, so for works the ban stands on both sides
        clean = south(without(model, name, "north"), name, banned if "works" in more else free)
        forbidden = south(model, name, banned)
        assert forbidden.equals(clean), "bit for bit"
        differ += not south(model, name, free).equals(clean)
        log = accounts_of(model, person=name).filter(platform="north").select("platform", "user")
        some = model.items.filter(platform="north")["item"].tail(5)
        log = pl.DataFrame({"item": some}).with_columns(platform=pl.lit("north"), user=pl.lit(log["user"][0]))
        assert south(model, name, banned, log).equals(clean), "new events change nothing either"
    assert differ >= 3, "without the ban the events of the north do count"


def test_a_ban_holds_for_one_person_one_way_and_among_many(model: Recommender) -> None:
    name, other = both(model), both(model, 1)
    plain, banned = (model.recommend(k=5, rules=Rules(consents=said)) for said in (None, bans(name)))
    mine = model.content.people.person(name).select("platform", "user")
    changed = plain.join(banned, on=plain.columns, how="anti")
    assert changed.height > 0
    assert changed.join(mine, on=["platform", "user"], how="anti").is_empty()
    assert set(changed["item_platform"]) == {"south"}
    alone = model.recommend(mine, k=5, rules=Rules(consents=bans(name)))
    assert alone.equals(banned.join(mine, on=["platform", "user"], how="semi", maintain_order="left"))
    by_account = bans(name).drop("person").with_columns(platform=pl.lit("south"), user=pl.lit(mine["user"][1]))
    assert model.recommend(mine, k=5, rules=Rules(consents=by_account)).equals(alone), (
        "an account says it for its person"
    )
    assert not south(model, other, APART).is_empty()


def test_any_other_platform_is_meant_by_a_star_and_the_last_word_counts(model: Recommender) -> None:
    name = both(model)
    starred = replace(APART, consents=bans(name, "*", "*"))
    assert south(model, name, starred).equals(south(model, name, replace(APART, consents=bans(name))))
    own = replace(APART, consents=bans(name, "south", "south"))
    assert not south(model, name, own).equals(south(model, name, APART)), "named both times: its own events"
    taken_back = pl.concat([bans(name), bans(name, "north", "*", allowed=True)])
    assert south(model, name, replace(APART, consents=taken_back)).equals(south(model, name, APART))


def test_consents_are_kept_beside_the_model_and_survive_a_new_one(model: Recommender, tmp_path: Path) -> None:
    name = both(model)
    model.save(tmp_path / "m")
    platforms = ["north", "south"]
    write_consents(conform_consents(bans(name), platforms), tmp_path / "m")
    opened = Recommender.open(tmp_path / "m")
    wanted = south(model, name, replace(APART, consents=bans(name)))
    assert south(opened, name, APART).equals(wanted)
    model.save(tmp_path / "m")  # fitted again, knowing nothing of the ban
    assert south(Recommender.open(tmp_path / "m"), name, APART).equals(wanted)
    assert south(Recommender.open(opened.save(tmp_path / "copy") and tmp_path / "copy"), name, APART).equals(wanted)
    again = with_consents(read_consents(tmp_path / "m"), conform_consents(bans(name, allowed=True), platforms))
    assert again.height == 1, "said again replaces what was said"
    write_consents(again, tmp_path / "m")
    assert south(Recommender.open(tmp_path / "m"), name, APART).equals(south(model, name, APART))


def test_a_lost_or_changed_ban_is_an_error_and_not_forgotten(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    write_consents(conform_consents(bans(both(model)), ["north", "south"]), tmp_path / "m")
    path = tmp_path / "m" / "consents.json"
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(ArtefactError, match="changed since"):
        Recommender.open(tmp_path / "m")
    path.unlink()
    with pytest.raises(ArtefactError, match="nobody's ban is known"):
        Recommender.open(tmp_path / "m")


def test_wrong_consents_are_named() -> None:
    platforms = ["north", "south"]
    with pytest.raises(NotFoundError, match="did you mean 'north'"):
        conform_consents(bans("ann", "noth"), platforms)
    with pytest.raises(DataError, match="names nobody"):
        conform_consents(bans("ann").drop("person"), platforms)
    with pytest.raises(DataError, match="lacks column"):
        conform_consents(bans("ann").drop("allowed"), platforms)
    with pytest.raises(DataError, match="neither yes nor no"):
        conform_consents(bans("ann").with_columns(allowed=pl.lit("maybe")), platforms)


def test_a_model_of_the_first_format_still_opens_and_persons_are_called_by_an_account(
    model: Recommender, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    (tmp_path / "m" / "consents.json").unlink()
    old = model.content.people.accounts.select("platform", "user", "person")
    old.write_parquet(tmp_path / "m" / "accounts.parquet")
    manifest = json.loads((tmp_path / "m" / "model.json").read_text())
    from isthmus.files import sha256

    del manifest["sha256"]
    files = {**manifest["files"], "accounts.parquet": sha256(tmp_path / "m" / "accounts.parquet")}
    (tmp_path / "m" / "model.json").write_text(json.dumps({**manifest, "format": 1, "files": files}))
    opened = Recommender.open(tmp_path / "m")
    assert opened.recommend(k=3).equals(model.recommend(k=3))
    account = accounts_of(model, person=both(model)).row(0)
    assert accounts_of(opened, account=f"{account[0]}:{account[1]}")["name"][0] == f"{account[0]}:{account[1]}"


def test_lists_hold_one_edition_of_a_work_and_none_that_was_met(model: Recommender) -> None:
    name = both(model)
    plain = model.recommend(accounts_of(model, person=name).head(1), k=10, rules=APART)
    north, south_ = (plain.filter(item_platform=side)["item"] for side in ("north", "south"))
    pairs = pl.DataFrame(
        {"platform": "north", "item": north, "other_platform": "south", "other_item": south_.reverse()}
    )
    people = model.content.people
    mine = people.events.filter(pl.col("person") == people.person(name)["person"][0])["item"]
    met = model.items[mine].filter(platform="north")["item"][0]
    pairs = pl.concat([pairs, pairs[:1].with_columns(item=pl.lit(met), other_item=pl.lit(south_[0]))])
    rules = replace(APART, works=pairs)
    lists = model.recommend(accounts_of(model, person=name).head(1), k=10, rules=rules)
    assert lists.group_by("item_platform").len()["len"].to_list() == [10, 10], "the next ones move up"
    assert south_[0] not in lists["item"].to_list(), "met in the north"
    shown = set(lists.select("item_platform", "item").rows())
    for row in pairs.rows():
        assert len({row[:2], row[2:]} & shown) <= 1
    assert ("north", north[1]) in shown, "the better placed edition stays"
    again = model.recommend(accounts_of(model, person=name).head(1), k=10, rules=replace(rules, met_elsewhere=True))
    assert south_[0] in again["item"].to_list()
    everybody = model.recommend(k=10, rules=rules)
    mine = everybody.join(
        lists.select("platform", "user").unique(), on=["platform", "user"], how="semi", maintain_order="left"
    )
    assert mine.equals(lists), "alone or among many"


def test_one_id_on_two_platforms_of_one_domain_is_unambiguous() -> None:
    log = [("shop", f"u{n % 6}", f"i{n % 4}", float(n)) for n in range(40)]
    log += [("library", f"u{n % 5}", f"i{n % 3}", float(n) + 0.5) for n in range(40)]
    keys = sorted({(platform, item) for platform, _, item, _ in log})
    titles = {("shop", "i0"): "Tea", ("library", "i0"): "Grammar"}
    rows = [(*key, "books", titles.get(key, f"{key[0]} {key[1]} 书")) for key in keys]
    items = pl.DataFrame(rows, schema=["platform", "item", "domain", "title"], orient="row")
    accounts = pl.DataFrame({"platform": ["shop", "library"], "user": "u1", "person": "ann"})
    tables = {"events": events(log), "items": items, "identities": accounts}
    split = Split.make(Corpus.from_tables(tables, name="two"), test_share=0.0, valid_share=0.2)
    recommender = Recommender.fit(split, settings=replace(QUICK, methods=("popularity", "tfidf")))
    lists = recommender.recommend(pl.DataFrame({"platform": ["shop"], "user": ["new"]}), k=50)
    assert lists.select("item_platform", "item").sort("item_platform", "item").rows() == keys
    assert lists.filter(pl.col("item") == "i0").height == 2
    found = person_lists(recommender, accounts_of(recommender, person="ann"), Question(exclude_seen=False))
    assert found.lists.group_by("item_platform", maintain_order=True).len().rows() == [("library", 3), ("shop", 4)]
    named = {(row["item_platform"], row["item"]): row["title"] for row in found.lists.to_dicts()}
    assert (named["shop", "i0"], named["library", "i0"]) == ("Tea", "Grammar")
    two = pl.DataFrame({"platform": ["shop"], "user": ["fan"], "item": ["i0"]})
    seen = recommender.recommend(two.select("platform", "user"), events=two, k=50)
    assert ("library", "i0") in seen.select("item_platform", "item").rows(), "only the one met is left out"


def test_links_in_a_circle_make_one_person() -> None:
    pairs = [
        ("a", "1", "b", "1"),
        ("b", "1", "c", "1"),
        ("c", "1", "a", "1"),
        ("a", "1", "a", "1"),
        ("b", "1", "a", "1"),
    ]
    links = Links()
    links.pairs.append(pl.DataFrame(pairs, schema=["platform", "user", "other_platform", "other_user"], orient="row"))
    platforms = {"a": "shop", "b": "cinema", "c": "radio"}
    log = [
        (name, user, f"{name}{n % 4}", float(n)) for n in range(12) for name in platforms for user in ("1", f"x{n % 3}")
    ]
    accounts = pl.DataFrame(log, schema=["platform", "user", "item", "day"], orient="row").select("platform", "user")
    identities, report = resolve(accounts.unique(), links)
    assert report["linked"] == 1
    items = pl.DataFrame(sorted({(p, i) for p, _, i, _ in log}), schema=["platform", "item"], orient="row")
    items = items.with_columns(domain=pl.col("platform").replace(platforms), title=pl.lit("t"))
    tables = {"events": events(log), "items": items, "identities": identities}
    split = Split.make(Corpus.from_tables(tables, name="ring"), test_share=0.0, valid_share=0.2)
    recommender = Recommender.fit(split, settings=replace(QUICK, methods=("popularity", "knn")))
    mine = accounts_of(recommender, person="a:1")
    assert mine["platform"].to_list() == ["a", "b", "c"]
    assert person_lists(recommender, mine, Question(exclude_seen=False)).met == {"a": 12, "b": 12, "c": 12}


def test_somebody_with_a_hundred_thousand_events_is_served_in_seconds(model: Recommender) -> None:
    items = model.items.select("platform", "item")
    some = items[np.random.default_rng(0).integers(0, items.height // 3, 100_000)]
    log = some.with_columns(user=pl.lit("busy"))
    start = time.perf_counter()
    accounts = accounts_of(model, account="north:busy", events=log)
    rules = Rules(by_platform=True, consents=bans("north:busy"), calibrate=0.2)
    found = person_lists(model, accounts, Question(k=20, rules=rules, events=log))
    assert time.perf_counter() - start < 20  # 1 s on a quiet machine
    assert sum(found.met.values()) == 100_000
    assert found.lists.height == 40
    assert found.lists["score"].is_finite().all()


def test_items_without_any_text_are_listed_and_never_taken_for_one_work() -> None:
    log = [(p, f"u{n % 7}", f"{p}{n % 5}", float(n)) for n in range(50) for p in ("shop", "cinema")]
    silent = {f"{p}{n}": None for p in ("shop", "cinema") for n in range(5)}
    split = Split.make(corpus(log, titles=silent), test_share=0.0, cuts=(day(40), day(60)))
    recommender = Recommender.fit(split, settings=replace(QUICK, methods=("popularity", "knn")))
    found = person_lists(recommender, accounts_of(recommender, person="u1"), Question(exclude_seen=False))
    assert found.lists.height == 10
    assert found.consistency is None, "nothing is known of what items are about"
    with pytest.raises(InputError, match="0 themes"):
        model_consistency(recommender)
    calibrated = Question(rules=replace(APART, calibrate=0.5), exclude_seen=False)
    same = person_lists(recommender, accounts_of(recommender, person="u1"), calibrated)
    assert same.lists.equals(found.lists)
