"""Pseudonyms: what is written names nobody, and who has the key is served as before."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_where_ids_stand import QUICK, naming

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.data.pseudonyms import Pseudonyms
from isthmus.data.simulate import write_town
from isthmus.errors import DataError, InputError, NotFoundError
from isthmus.pipeline import run
from isthmus.pipeline.rate import RateSettings, rate
from isthmus.pipeline.rater import Rater, find_pairs
from isthmus.recommender import Recommender
from isthmus.recommender.persons import accounts_of
from isthmus.recommender.profile import profile
from isthmus.recommender.profile_person import Who
from isthmus.split.temporal import HeldOut, Split

ENV = "ISTHMUS_TEST_NAMES"
SECRET = "a secret for these tests alone"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, SECRET)
    monkeypatch.setenv("ISTHMUS_TOWN_SECRET", "sixteen characters or more")


def town(folder: Path, *, hidden: bool) -> Path:
    """Return the spec of a town's logs, with pseudonyms or without."""
    spec = write_town(folder, seed=2, persons=120)
    if hidden:
        spec.write_text(spec.read_text().replace("[identity]\n", f'[identity]\npseudonyms_env = "{ENV}"\n'))
    return spec


@given(st.text(), st.text(), st.text())
def test_a_pseudonym_is_a_function_of_platform_user_and_key(platform: str, user: str, other: str) -> None:
    names = Pseudonyms(ENV)
    told = names.user(platform, user)
    assert re.fullmatch(r"~[\w-]{22}", told)
    assert names.user(platform, told) == told, "it stays as it is"
    assert names.user(other, user) != told or other == platform
    assert names.user(platform, other) != told or other == user
    assert names.person(user) != told


def test_another_key_gives_other_names_and_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(json.dumps(Pseudonyms(ENV).to_json()))
    assert SECRET not in json.dumps(said)
    known = Pseudonyms(ENV).user("shop", "u17")
    monkeypatch.setenv(ENV, SECRET + "!")
    assert Pseudonyms(ENV).user("shop", "u17") != known
    again = Pseudonyms.of_json(said)
    assert again is not None
    with pytest.raises(InputError, match="another secret"):
        again.user("shop", "u17")
    assert again.user("shop", known) == known, "a pseudonym needs no key"
    for value in ("", "too short"):
        monkeypatch.setenv(ENV, value)
        with pytest.raises(InputError, match=f"{ENV} holds no secret"):
            again.user("shop", "u17")


def test_a_table_is_hidden_row_by_row_and_what_is_empty_stays_empty() -> None:
    names = Pseudonyms(ENV)
    rows = [("shop", "u1", "ann"), ("radio", "u1", None), ("shop", None, "ann"), ("shop", "u1", "bob")]
    table = pl.DataFrame(rows, schema=["platform", "user", "person"], orient="row")
    for (platform, user, person), (_, hidden, called) in zip(rows, names.hide(table).rows(), strict=True):
        assert hidden == (None if user is None else names.user(platform, user))
        assert called == (None if person is None else names.person(person))


def test_from_logs_to_lists_nothing_written_has_an_id_and_everybody_is_found(tmp_path: Path) -> None:
    plain = import_corpus(town(tmp_path / "logs", hidden=False), tmp_path / "plain")
    out = tmp_path / "out"
    run(town(tmp_path / "logs", hidden=True), out, QUICK)
    users = plain.identities["user"].to_list()
    assert len(users) == 192
    assert naming(out, [*users, SECRET]) == set()
    assert naming(tmp_path / "plain", users), "where they are not hidden they are found"
    corpus, names = Corpus.open(out / "corpus"), Pseudonyms(ENV)
    assert corpus.events.height == plain.events.height
    together = plain.identities.with_columns(names.users(plain.identities))
    assert set(corpus.identities.rows()) == {(p, user, names.person(one)) for p, user, one in together.rows()}
    rejects = pl.read_parquet(out / "corpus" / "rejects.parquet")
    assert rejects.height > 0
    assert rejects["raw"].null_count() == rejects.height

    model = Recommender.open(out / "model")
    asked = plain.identities.select("platform", "user").head(20)
    hidden = asked.with_columns(names.users(asked))
    lists = model.recommend(asked, k=5)
    assert set(lists["user"]) == set(asked["user"]), "answers have the names that were asked for"
    by_pseudonym = model.recommend(hidden, k=5)
    answered = names.hide(lists).sort("platform", "user", "domain", "rank")
    assert answered.equals(by_pseudonym.sort("platform", "user", "domain", "rank"))
    platform, user = asked.row(0)
    nobody = model.recommend(pl.DataFrame({"platform": [platform], "user": ["nobody-at-all"]}), k=5)
    assert nobody["item"].to_list() != model.recommend(asked.head(1), k=5)["item"].to_list()
    name = plain.identities["person"][0]
    assert accounts_of(model, person=name).equals(accounts_of(model, account=f"{platform}:{user}"))
    with pytest.raises(NotFoundError):
        accounts_of(model, person="nobody")
    assert profile(model, Who(account=(platform, user))).events == profile(model, Who(person=name)).events > 0


def test_people_are_held_out_by_their_own_names(tmp_path: Path) -> None:
    corpus = import_corpus(town(tmp_path / "logs", hidden=True), tmp_path / "hidden")
    plain = import_corpus(town(tmp_path / "logs", hidden=False), tmp_path / "plain")
    accounts = plain.identities.select("platform", "user")
    held = HeldOut(accounts.head(3), accounts.tail(3))
    split = Split.make(corpus, protocol="leave-last", held_out=held)
    assert split.events.filter(pl.col("part") == 2)["person"].n_unique() == 3
    stranger = HeldOut(accounts.head(3), pl.DataFrame({"platform": ["bookshop"], "user": ["nobody"]}))
    with pytest.raises(DataError, match="no events"):
        Split.make(corpus, protocol="leave-last", held_out=stranger)


def test_ratings_are_told_for_own_names(tmp_path: Path) -> None:
    plain = import_corpus(town(tmp_path / "logs", hidden=False), tmp_path / "plain")
    corpus = import_corpus(town(tmp_path / "logs", hidden=True), tmp_path / "hidden")
    fitted = rate(Split.make(corpus), RateSettings("films", read=False))
    fitted.rater.save(tmp_path / "rater")
    rater = Rater.open(tmp_path / "rater")
    rated = plain.events.filter((pl.col("event") == "rate") & (pl.col("platform") == "filmhouse"))
    pairs = rated.select("platform", "user", "item").head(30)
    found = find_pairs(rater, pairs)
    assert found.select("platform", "user", "item").equals(pairs)
    told = find_pairs(rater, Pseudonyms(ENV).hide(pairs))
    assert found["rating"].equals(told["rating"])
    assert "both" in found["known"].to_list()
    assert naming(tmp_path / "rater", plain.identities["user"].to_list()) == set()
