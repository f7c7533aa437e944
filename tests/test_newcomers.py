"""People without any event: told by attributes and by the moment, where validation says that it helps."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pages import blocks_of, text_of
from tests.small import corpus
from tests.test_cli import good, isthmus

from isthmus.errors import ArtefactError, InputError
from isthmus.recommender import Recommender
from isthmus.recommender.lifting import NEEDED, SHARES, chosen, mixed
from isthmus.recommender.listing import Rules
from isthmus.recommender.newcomers import told_by_accounts, with_segments
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings

PAGE = text_of("new-people.md")
HOW = FitSettings(methods=("popularity", "recent"), budget=1.0)
#: The lists of ten that are right for each city, of 30 items.
OWN = {"北京": {f"i{n:02}" for n in range(15)}, "Lyon": {f"i{n:02}" for n in range(15, 30)}}


def town(loyal: bool = True, people: int = 700) -> Split:
    """Return people who come once, one or two a day: where they live tells what they want, or nothing."""
    rng = np.random.default_rng(0)
    log, told = [], {}
    for person in range(people):
        city = ("北京", "Lyon")[person % 2]
        told[f"u{person}"] = json.dumps({"city": city, "gender": "f", "tier": "women's" if person % 3 else "x"})
        half = sorted(OWN[city]) if loyal else sorted(set().union(*OWN.values()))
        log += [("shop", f"u{person}", str(item), person / 2) for item in rng.choice(half, 2, replace=False)]
    return Split.make(corpus(log, users=told), valid_share=0.2, test_share=0.1)


@cache
def model(loyal: bool = True, refit: bool = True) -> Recommender:
    split = town(loyal)
    plain = Recommender.fit(split, settings=FitSettings(**{**vars(HOW), "refit": refit}))
    return with_segments(plain, split, ["city", "weekday"])


def share_of(found: Recommender, city: str, asked: pl.DataFrame) -> float:
    """Return the share of the lists that is right for a city; half of all items are."""
    lists = found.recommend(asked)
    assert lists.height == 10 * asked.height
    return float(lists["item"].is_in(list(OWN[city])).mean())  # type: ignore[arg-type]


def strangers(**told: str | None) -> pl.DataFrame:
    users = pl.DataFrame({"platform": ["shop"] * 3, "user": ["new 1", "new 2", "new 3"]})
    return users.with_columns(pl.lit(value, pl.String).alias(name) for name, value in told.items())


@pytest.mark.parametrize("refit", [True, False])
def test_a_stranger_who_tells_the_city_gets_what_is_met_there(refit: bool) -> None:
    newcomers = model(refit=refit).content.newcomers
    assert newcomers is not None
    said = newcomers.tried["books"]
    assert isinstance(said, dict)
    assert said["people"] > 80
    assert said["gain"] > 3 * said["error"] > 0
    for city in OWN:
        assert share_of(model(refit=refit), city, strangers(city=city)) > 0.9
    plain = strangers()
    assert 0.2 < share_of(model(), "Lyon", plain) < 0.8


def test_what_is_not_told_or_not_known_changes_nothing() -> None:
    found = model()
    before = found.recommend(strangers())
    for told in ({"city": "Rome"}, {"shoe": "42"}, {"city": None}):
        after = found.recommend(strangers(**told))
        assert after.equals(before), told


def test_the_model_remembers_where_its_people_live() -> None:
    found = model()
    last = pl.DataFrame({"platform": ["shop"], "user": ["u699"]})  # first met in the test part
    assert share_of(found, "Lyon", last) > 0.9
    assert share_of(found, "北京", last.with_columns(city=pl.lit("北京"))) > 0.9  # what is said now comes first


def test_people_with_events_keep_the_list_of_the_blend() -> None:
    split, found = town(), model()
    plain = Recommender.fit(split, settings=HOW)
    old = pl.DataFrame({"platform": ["shop"] * 2, "user": ["u0", "u1"], "city": ["Lyon", "Lyon"]})
    assert found.recommend(old).equals(plain.recommend(old.drop("city")))


def test_who_forbids_a_use_of_their_events_is_not_looked_up() -> None:
    said = {"platform": "shop", "user": "u699", "from_platform": "*", "to_platform": "shop", "allowed": "no"}
    bans = Rules(consents=pl.DataFrame([{**said, "from_platform": "shop"}]))
    asked = pl.DataFrame({"platform": ["shop"], "user": ["u699"]})
    found = model()
    plain = found.recommend(strangers().head(1))["item"].to_list()
    assert found.recommend(asked, rules=bans)["item"].to_list() == plain
    assert found.recommend(asked)["item"].to_list() != plain
    spoken = found.recommend(asked.with_columns(city=pl.lit("Lyon")), rules=bans)["item"]
    assert spoken.is_in(list(OWN["Lyon"])).mean() > 0.9  # type: ignore[operator]


def test_where_the_city_says_nothing_it_is_not_kept() -> None:
    newcomers = model(loyal=False).content.newcomers
    assert newcomers is not None
    assert not newcomers.segments
    assert newcomers.tried["books"]["people"] > 80  # type: ignore[index]


def test_it_is_stored_and_knows_new_items(tmp_path: Path) -> None:
    found = model()
    found.save(tmp_path / "model")
    again = Recommender.open(tmp_path / "model")
    asked = strangers(city="北京", weekday="3")
    assert again.recommend(asked).equals(found.recommend(asked))
    new = pl.DataFrame({"platform": ["shop"], "item": ["fresh"], "domain": ["books"], "title": ["深海"]})
    assert share_of(again.add_items(new), "北京", asked) > 0.8
    (tmp_path / "model" / "segments.parquet").write_bytes(b"no")
    with pytest.raises(ArtefactError, match="changed since"):
        Recommender.open(tmp_path / "model")


@pytest.mark.parametrize(
    ("by", "protected", "message"),
    [
        (["gender"], [], "'gender' tells a protected attribute"),
        (["tier"], [], "'tier' tells a protected attribute"),
        (["shoe"], [], "nobody has the attribute 'shoe'"),
        (["city"], ["cty"], "'cty' is allowed but not a segment"),
        (["user"], [], "user cannot be a segment"),
    ],
)
def test_what_cannot_be_or_must_not_be_a_segment_is_refused(by: list[str], protected: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        told_by_accounts(town(people=20), by, protected)


def test_a_protected_attribute_counts_only_if_allowed_by_name() -> None:
    told = told_by_accounts(town(people=20), ["gender", "city", "hour"], ["gender"])
    assert told.columns == ["platform", "user", "gender", "city"]


def test_too_few_people_to_choose_leave_the_blend_alone() -> None:
    split = town(people=60)
    newcomers = with_segments(Recommender.fit(split, settings=HOW), split, ["city"]).content.newcomers
    assert newcomers is not None
    assert not newcomers.segments
    assert newcomers.tried["books"]["people"] < NEEDED  # type: ignore[index]


def test_another_split_is_refused() -> None:
    with pytest.raises(InputError, match="fitted on other data"):
        with_segments(model(), town(people=60), ["city"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SHARES))
def test_mixing_keeps_what_is_shut_and_what_is_fixed(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    base, own = rng.normal(size=(2, 3, 8)).astype(np.float32)
    base[:, 0] = -np.inf
    fixed = np.arange(8) == 1
    said = mixed(base, own, share, fixed)
    assert np.isneginf(said[:, 0]).all()
    assert np.isfinite(said[:, 1:]).all()
    np.testing.assert_allclose(mixed(3 * base + 2, 5 * own - 1, share, fixed), said, atol=1e-3)
    np.testing.assert_array_equal(said[:, 1], mixed(base, -own, share, fixed)[:, 1])


def test_chance_is_seldom_taken_for_a_gain() -> None:
    """A gain of one standard error by chance: about one in six, were there one share and not five to choose from."""
    kept = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(size=(1 + len(SHARES), 80))
        kept.append(chosen(noise, seed=seed).share > 0)
    assert np.mean(kept) < 0.3
    sure = np.random.default_rng(0).normal(size=(3, 80)) + np.array([[0], [0], [2]])
    assert chosen(sure, (0.1, 0.5)).share == 0.5


def test_a_known_world_by_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    split = town()
    Split(split.corpus.save("CORPUS"), split.events, split.card).save("SPLIT")
    strangers(city="北京").write_csv("USERS.csv")
    block = next(body for body in blocks_of(PAGE, "bash") if "--segments" in body)
    fit, recommend = (line.split()[1:] for line in block.splitlines())
    said = good(*fit, "--budget", "1")["targets"]["books"]["segments"]  # type: ignore[index]
    assert said["share"] in SHARES
    good(*recommend)
    lists = pl.read_csv("LISTS.csv")
    assert lists.height == 30
    assert lists["item"].is_in(list(OWN["北京"])).mean() > 0.9  # type: ignore[operator]
    done = isthmus(*fit, "--segments", "gender")
    assert done.code == 2
    assert "--protected gender" in done.err
