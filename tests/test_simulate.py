"""The simulated worlds hold what they promise: the same for a seed, and tastes that carry over, or do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from isthmus.data.corpus import Corpus
from isthmus.data.describe import describe
from isthmus.data.importer import import_corpus
from isthmus.data.simulate import TOWN, WORLD, town, town_tables, twin_world, unrelated_world, write_town
from isthmus.data.simulate.wording import headline, lexicon
from isthmus.data.simulate.worlds import START, Plan, World, draw


@pytest.fixture(scope="module")
def world() -> World:
    return town(seed=3)


def theme_shares(world: World, domain: str) -> tuple[list[str], np.ndarray]:
    """Return persons and the share of their events in ``domain`` on each theme."""
    tables = world.tables
    counts = (
        tables["events"]
        .join(tables["items"].select("platform", "item", "domain"), on=["platform", "item"])
        .filter(pl.col("domain") == domain)
        .join(tables["identities"], on=["platform", "user"])
        .join(world.themes, on=["platform", "item"])
        .pivot("theme", index="person", values="ts", aggregate_function="len")
        .fill_null(0)
        .sort("person")
    )
    matrix = counts.select(lexicon().names[: world.plan.themes]).to_numpy().astype(float)
    return counts["person"].to_list(), matrix / matrix.sum(axis=1, keepdims=True)


def carry(world: World) -> float:
    """Return the mean correlation of a person's themes in the two domains."""
    left, right = (domain.domain for domain in world.plan.places[:2])
    people, source = theme_shares(world, left)
    others, target = theme_shares(world, right)
    both = sorted(set(people) & set(others))
    a = source[[people.index(person) for person in both]]
    b = target[[others.index(person) for person in both]]
    return float(np.corrcoef(a.ravel() - 1 / a.shape[1], b.ravel() - 1 / b.shape[1])[0, 1])


def guess(world: World, *, by_text: bool) -> float:
    """Return how often an item of a person's target history outranks another one, by the source history alone.

    By text: cosine of TF-IDF vectors. By co-occurrence: counts over the other half of the people. Scores are
    centred over people, so that popularity is worth nothing.
    """
    left, right = (history(world, place.platform) for place in world.plan.places)
    if by_text:
        items = world.tables["items"].sort("platform", "item")
        words = TfidfVectorizer().fit_transform((items["title"] + " " + items["text"]).to_list()).toarray()
        scores = left @ words[: left.shape[1]] @ words[left.shape[1] :].T
        test, wanted = scores, right
    else:
        half = left.shape[0] // 2
        test, wanted = left[half:] @ (left[:half].T @ right[:half]), right[half:]
    centred = test / (test.sum(axis=1, keepdims=True) + 1e-9)
    centred = centred - centred.mean(axis=0)
    ranks = centred.argsort(axis=1).argsort(axis=1) / (centred.shape[1] - 1)
    return float(ranks[wanted > 0].mean())


def history(world: World, platform: str) -> np.ndarray:
    """Return the matrix persons × items (both sorted) of one platform: 1 where they met."""
    tables = world.tables
    people = tables["identities"]["person"].unique().sort()
    items = tables["items"].filter(pl.col("platform") == platform)["item"].sort()
    met = tables["events"].filter(pl.col("platform") == platform).join(tables["identities"], on=["platform", "user"])
    matrix = np.zeros((people.len(), items.len()))
    matrix[people.search_sorted(met["person"]), items.search_sorted(met["item"])] = 1
    return matrix


def test_a_seed_gives_the_same_town_and_another_seed_another() -> None:
    first, again, other = (town_tables(seed, persons=60) for seed in (1, 1, 2))
    assert all(first[name].equals(again[name]) for name in first)
    assert not first["events"].equals(other["events"])


def test_town_is_of_the_promised_size_and_shape(world: World) -> None:
    facts = describe(Corpus.from_tables(world.tables, name="town"))
    assert 35_000 < facts["counts"]["events"] < 50_000
    assert facts["counts"]["items"] == 900
    assert 1400 < facts["counts"]["persons"] <= 1500
    assert facts["domains"].keys() == {"books", "films", "music"}
    assert 0.35 < facts["identity"]["on_several_platforms"] / facts["counts"]["persons"] < 0.45
    assert all(0.15 < platform["languages"]["Chinese"] < 0.35 for platform in facts["platforms"].values())
    assert all(platform["head_share"] > 0.2 for platform in facts["platforms"].values())
    assert facts["identity"]["conflicts"] == 0


def test_town_has_texts_titles_and_ids_of_its_own_on_each_platform(world: World) -> None:
    items = world.tables["items"]
    assert items["title"].str.len_chars().min() > 1
    assert items["text"].str.len_chars().min() > 15
    assert not items.select("platform", "title").is_duplicated().any()
    assert items["title"].str.contains(r"[{}]").sum() == 0
    users = world.tables["identities"].group_by("platform").agg("user")
    ids = [set(row["user"]) for row in users.iter_rows(named=True)]
    assert not set.intersection(*ids)
    assert world.tables["users"].filter(pl.col("user").str.starts_with("0")).height > 0  # leading zeros in the wild


def test_nobody_meets_an_item_before_it_is_out(world: World) -> None:
    met = world.tables["events"].join(
        world.tables["items"].select("platform", "item", "available_from"), on=["platform", "item"]
    )
    assert (met["ts"] >= met["available_from"]).all()
    assert (met["ts"] >= START).all()
    late = world.tables["items"].filter(pl.col("available_from") > START)
    assert 0.2 < late.height / 900 < 0.3


def test_new_people_join_late(world: World) -> None:
    first = world.tables["events"].group_by("platform", "user").agg(pl.col("ts").min())["ts"]
    late = (first.dt.month() > 8).mean()
    assert 0.05 < late < 0.3


def test_values_follow_the_canonical_tables(world: World) -> None:
    events = world.tables["events"]
    rates = events.filter(pl.col("event") == "rate")
    assert rates["value"].is_between(0, 1).all()
    assert rates.filter(pl.col("platform") == "filmhouse")["value"].n_unique() == 10
    assert rates.filter(pl.col("platform") == "bookshop")["value"].n_unique() == 5
    assert events.filter(pl.col("event") == "play")["value"].min() >= 5
    assert not events.select("platform", "user", "item", "event").is_duplicated().any()


def test_people_do_what_they_like(world: World) -> None:
    met = (
        world.tables["events"]
        .join(world.tables["identities"], on=["platform", "user"])
        .join(world.tables["items"].select("platform", "item", "domain"), on=["platform", "item"])
        .join(world.themes, on=["platform", "item"])
    )
    own = met.join(world.tastes, on=["person", "domain", "theme"], how="semi").height / met.height
    assert own > 0.8
    loved = met.join(world.tastes, on=["person", "domain", "theme", "strand"], how="semi").height / met.height
    assert 0.5 < loved < own


def test_tastes_are_the_same_on_all_platforms_of_the_town(world: World) -> None:
    per_domain = world.tastes.group_by("person", "theme", "strand").len()
    assert (per_domain["len"] == 3).all()


def test_tastes_carry_over_in_the_twin_world_only() -> None:
    assert carry(twin_world(seed=5)) > 0.6
    assert abs(carry(unrelated_world(seed=5))) < 0.1


@pytest.mark.parametrize("by_text", [True, False], ids=["text", "co-occurrence"])
def test_a_source_history_tells_the_target_items_in_the_twin_world_only(by_text: bool) -> None:
    assert guess(twin_world(seed=2), by_text=by_text) > 0.65
    assert abs(guess(unrelated_world(seed=2), by_text=by_text) - 0.5) < 0.03


def test_worlds_follow_their_plan() -> None:
    plan = replace(WORLD, persons=100, items=60, themes=4, shared=0.5)
    world = twin_world(seed=1, plan=plan)
    assert world.tables["items"].height == 120
    assert world.themes["theme"].n_unique() == 4
    accounts = world.tables["identities"].group_by("person").len()["len"]
    assert 0.3 < (accounts == 2).mean() < 0.7
    assert unrelated_world(seed=1, plan=replace(plan, shared=0.0)).tables["identities"]["person"].is_unique().all()


def test_a_town_of_one_person_stands() -> None:
    world = draw(Plan(places=TOWN, persons=1), seed=0)
    assert world.tables["identities"].height >= 1
    assert Corpus.from_tables(world.tables, name="hermit").persons.len() == 1


def test_titles_have_english_capitals() -> None:
    assert headline("a diver in the abyssal plain") == "A Diver in the Abyssal Plain"
    assert headline("Xi'an") == "Xi'an"


def test_import_of_the_raw_logs_gives_the_clean_town_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setenv("ISTHMUS_TOWN_SECRET", "a secret for the tests of the town")
    corpus = import_corpus(write_town(tmp_path / "town", seed=3), tmp_path / "corpus")
    columns = ["platform", "user", "item", "event", "ts"]
    got = corpus.events.filter(pl.col("event") != "ad_click").sort(columns)
    wanted = world.tables["events"].sort(columns)
    assert got.select(columns).equals(wanted.select(columns))
    assert np.allclose(got["value"].fill_null(-1), wanted["value"].fill_null(-1))
    assert corpus.events.height > got.height  # ad clicks are kept, and are no taste
    assert corpus.interactions().height == got.height
    texts = ["platform", "item", "domain", "title", "text", "categories", "available_from"]
    assert corpus.items.select(texts).equals(world.tables["items"].select(texts))
    people = corpus.identities.join(world.tables["identities"], on=["platform", "user"], suffix="_true", validate="1:1")
    assert people.height == world.tables["identities"].height == corpus.identities.height
    pairs = people.select("person", "person_true").n_unique()
    assert pairs == people["person"].n_unique() == people["person_true"].n_unique()


def test_dirt_of_every_kind_is_found_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_TOWN_SECRET", "a secret for the tests of the town")
    corpus = import_corpus(write_town(tmp_path / "town", seed=1, persons=150), tmp_path / "corpus")
    cleaning, rejects = corpus.manifest["cleaning"], corpus.manifest["rejects"]
    assert {"bots", "duplicates", "near_duplicates"} <= cleaning.keys()
    assert 700 <= cleaning["bots"] <= 800
    assert not corpus.identities["user"].str.starts_with("bot").any()
    assert set(rejects.values()) == {1}
    assert len(rejects) == 7
    assert (corpus.events["event"] == "ad_click").any()


def test_raw_logs_are_the_same_for_a_seed(tmp_path: Path) -> None:
    first, again = (write_town(tmp_path / name, seed=1, persons=30).parent for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 11
    assert all((first / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_texts_that_tell_nothing_have_nothing_to_do_with_the_items() -> None:
    telling, astray = (unrelated_world(0, replace(WORLD, telling=flag)) for flag in (True, False))

    def shelves(world: World, domain: str) -> int:
        """Return how many themes the items of the commonest category are of."""
        items = world.tables["items"].join(world.themes, on=["platform", "item"]).filter(pl.col("domain") == domain)
        first = items.with_columns(shelf=pl.col("categories").list.first())
        most = first["shelf"].value_counts(sort=True)["shelf"][0]
        return first.filter(pl.col("shelf") == most)["theme"].n_unique()

    assert shelves(telling, "target") == 1
    assert shelves(astray, "target") > 5
    assert shelves(astray, "source") == 1
    assert astray.tables["events"].equals(telling.tables["events"])
