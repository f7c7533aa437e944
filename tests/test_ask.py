"""Questions: the information they promise is right, answers find the person's kind, the lists get better by them."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pages import blocks_of, text_of
from tests.test_cli import isthmus

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import DataError, InputError, NotFoundError
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Ranks
from isthmus.evaluate.stats import sign_flip
from isthmus.recommender import Recommender
from isthmus.recommender.asking import Interview
from isthmus.recommender.consents import SCHEMA
from isthmus.recommender.profile import Who
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings
from isthmus.transfer.ask import Asker, AskSettings, asked_all, has_met
from isthmus.transfer.crowds import Answers, Crowds, CrowdSettings

PLAIN = AskSettings(known=0.0)


def some_crowds(seed: int, crowds: int = 3, items: int = 5) -> Crowds:
    rng = np.random.default_rng(seed)
    return Crowds(rng.dirichlet(np.ones(crowds)), rng.uniform(0.02, 0.98, (crowds, items)).astype(np.float32))


def joint_information(crowds: Crowds, prior: np.ndarray, items: list[int]) -> float:
    """Return the information of the answers on ``items`` about the crowd, in bits, by going through all of them."""
    total = 0.0
    for pattern in itertools.product([True, False], repeat=len(items)):
        told = [crowds.chance[:, i] if yes else 1 - crowds.chance[:, i] for i, yes in zip(items, pattern, strict=True)]
        joint = prior * np.prod(np.array(told, dtype=np.float64), axis=0)
        total += float((joint * np.log2(joint / (joint.sum() * prior))).sum())
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_gain_is_the_mutual_information(seed: int) -> None:
    crowds = some_crowds(seed)
    found = Asker(crowds, np.ones(5, bool), PLAIN).gain(crowds.share[None])[0]
    assert found == pytest.approx([joint_information(crowds, crowds.share, [i]) for i in range(5)], abs=1e-6)
    assert (found <= 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_several_questions_are_the_greedy_set(seed: int) -> None:
    crowds, chosen = some_crowds(seed), []
    while len(chosen) < 3:
        left = [i for i in range(5) if i not in chosen]
        chosen.append(max(left, key=lambda i: joint_information(crowds, crowds.share, [*chosen, i])))
    assert Asker(crowds, np.ones(5, bool), PLAIN).questions(3).tolist() == chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=12))
def test_the_posterior_is_that_of_bayes(seed: int, told: list[tuple[int, int, bool]]) -> None:
    crowds = some_crowds(seed)
    rows, items, yes = (np.array([row[place] for row in told], dtype=int) for place in range(3))
    found = crowds.posterior(Answers(4, rows, items.astype(np.int32), yes.astype(bool)))
    for person in range(4):
        likely = crowds.share.copy()
        for row, item, liked in told:
            if row == person:
                likely *= crowds.chance[:, item] if liked else 1 - crowds.chance[:, item]
        assert found[person] == pytest.approx(likely / likely.sum(), abs=1e-6)


def test_asking_one_by_one_is_asking_again_after_each_answer() -> None:
    crowds = some_crowds(3, crowds=4, items=12)
    asker = Asker(crowds, np.ones(12, bool))
    people = Histories.of([[0, 3, 5, 7], [1, 2], [], [8, 9, 10, 11]])
    met = has_met(people, 12)
    found = asker.interview(met, 4, 5)
    for person in range(4):
        said = Answers.none()
        for _ in range(5):
            item = asker.questions(1, said)
            said = said.and_then(np.zeros(1, np.int64), item, met(np.array([person]), item))
        mine = found.rows == person
        assert found.items[mine].tolist() == said.items.tolist()
        assert found.yes[mine].tolist() == said.yes.tolist()


def test_answers_can_be_cut_and_become_histories() -> None:
    met = has_met(Histories.of([[1, 2], [4], []]), 6)
    answers = asked_all(met, 3, np.array([2, 4, 1], np.int32))
    assert answers.histories.items.tolist() == [2, 1, 4]
    assert answers.histories.lengths.tolist() == [2, 1, 0]
    assert answers.first(2).items.tolist() == [2, 4] * 3
    assert answers.span(1, 3).histories.lengths.tolist() == [1, 0]
    assert len(answers.first(0)) == 3


GROUPS, EACH, FAMOUS = 4, 12, 6


def tribes(people: int, seed: int) -> tuple[Histories, np.ndarray]:
    """Return people of four kinds; everybody met half of six famous items, and a third of the twelve of their kind."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(GROUPS, size=people)
    own = np.repeat(np.arange(GROUPS), EACH)
    chance = np.concatenate([np.full((people, FAMOUS), 0.5), np.where(own == kind[:, None], 0.33, 0.01)], axis=1)
    return Histories.of([np.flatnonzero(row).tolist() for row in rng.random(chance.shape) < chance]), kind


def test_famous_items_are_not_asked_about_where_they_tell_nothing() -> None:
    people, _ = tribes(600, 1)
    crowds = Crowds.of(people, FAMOUS + GROUPS * EACH, CrowdSettings(crowds=4, dim=4))
    assert crowds.share == pytest.approx([0.25] * 4, abs=0.06)
    asker = Asker(crowds, np.ones(FAMOUS + GROUPS * EACH, bool), PLAIN)
    assert (asker.questions(6) >= FAMOUS).all()
    kinds = (asker.questions(3) - FAMOUS) // EACH
    assert len(set(kinds.tolist())) == 3, "each question is about another kind"
    asked, kind = tribes(300, 2)
    met = has_met(asked, FAMOUS + GROUPS * EACH)
    right = {}
    truth = np.stack(
        [crowds.chance[:, FAMOUS + g * EACH : FAMOUS + (g + 1) * EACH].mean(axis=1) for g in range(GROUPS)]
    )
    for name, answers in {
        "ours": asker.interview(met, 300, 16),
        "popular": asked_all(met, 300, np.arange(FAMOUS, dtype=np.int32)),
    }.items():
        right[name] = float((truth.argmax(axis=0)[crowds.posterior(answers).argmax(axis=1)] == kind).mean())
    assert 0.75 < right["ours"] < 0.97, "four in five met one of the four items of their kind in the questions"
    assert right["popular"] < 0.45


@pytest.fixture(scope="module")
def town() -> tuple[Split, Recommender, np.ndarray]:
    """A twin world of which a third of the people are kept aside, and their persons."""
    world = twin_world(4, replace(WORLD, persons=540, items=160))
    corpus = Corpus.from_tables(world.tables, name="twin")
    aside = np.arange(corpus.persons.len()) % 3 == 0
    names = corpus.persons.filter(pl.Series(~aside))
    accounts = corpus.identities.filter(pl.col("person").is_in(names.implode()))
    tables = {**world.tables, "identities": accounts}
    tables["events"] = world.tables["events"].join(accounts, on=["platform", "user"], how="semi")
    split = Split.make(Corpus.from_tables(tables, name="twin"), valid_share=0.15, test_share=0.0)
    quick = FitSettings(methods=("popularity", "knn"), budget=2.0)
    return Split.make(corpus), Recommender.fit(split, targets=["target"], settings=quick), np.flatnonzero(aside)


def test_the_lists_get_better_by_answers_and_more_by_ours(town: tuple[Split, Recommender, np.ndarray]) -> None:
    split, model, aside = town
    source = (model.items["domain"] == "source").to_numpy()
    people = Histories.from_frame(split.corpus.interactions(), aside.astype(np.int64))
    late = ~source[people.items] & (people.age < people.lengths[people.rows] // 4)
    known, wanted = people.keep(~late), people.keep(late)
    both = np.flatnonzero((known.lengths > 0) & (wanted.lengths > 0))
    known, wanted = known.take(both), wanted.take(both)
    asker = Interview(model, "target").asker
    met, n, target = has_met(known, model.items.height), len(known), model.targets["target"]

    def values(answers: Answers) -> np.ndarray:
        scores = asker.list_scores(target, answers)
        column = np.searchsorted(target.items, wanted.matrix(model.items.height).indices)
        indptr = wanted.matrix(model.items.height).indptr.astype(np.int64)
        return ndcg(Ranks.of(scores, indptr, column.astype(np.int32)), 10)

    counts = model.content.people.events.group_by("item").len()
    popularity = np.zeros(model.items.height)
    popularity[counts["item"].to_numpy()] = counts["len"].to_numpy()
    popular = np.argsort(-popularity, kind="stable")[:10].astype(np.int32)
    drawn = np.random.default_rng(0).choice(source.size, 10, replace=False).astype(np.int32)
    nothing, ours = values(Answers.none(n)), values(asker.interview(met, n, 10))
    rivals = {"popular": values(asked_all(met, n, popular)), "random": values(asked_all(met, n, drawn))}
    assert 1.3 * nothing.mean() < ours.mean() < 0.9
    for rival in rivals.values():
        assert ours.mean() > rival.mean()
    gap = (ours - rivals["random"])[:, None]
    assert float(np.ravel(sign_flip(gap, rng=np.random.default_rng(0)))[0]) < 0.01


def filled(asked: pl.DataFrame, *words: str) -> pl.DataFrame:
    return asked.head(len(words)).with_columns(answer=pl.Series(words))


def test_answers_steer_the_questions_and_the_list(town: tuple[Split, Recommender, np.ndarray]) -> None:
    interview = Interview(town[1], "target")
    first = interview.questions(6)
    assert first["item"].n_unique() == 6
    assert first["bits"].is_between(0, 1).all()
    assert first["chance"].is_between(0, 1).all()
    said = filled(first, "yes", "no", "unknown")
    second = interview.questions(6, said)
    assert not second.join(said, on=["platform", "item"], how="semi").height
    before, after = (set(interview.recommend(given)["item"]) for given in (None, said))
    assert before != after
    whole = interview.recommend(filled(first, "unknown", "unknown"), k=1000)
    asked = interview.recommend(said, k=1000)
    gone = set(whole["item"]) - set(asked["item"])
    targets = set(town[1].items.filter(domain="target")["item"])
    assert gone == set(said["item"][:2]) & targets, "what is known or refused is not listed, what is unknown is"
    changed = interview.recommend(pl.concat([said, filled(first, "unknown")]), k=1000)
    assert said["item"][0] not in targets or said["item"][0] in set(changed["item"]), "the last answer counts"


def test_somebody_known_is_not_asked_what_is_known(town: tuple[Split, Recommender, np.ndarray]) -> None:
    model = town[1]
    platform, user, number = model.content.people.accounts.row(5)[:3]
    interview = Interview(model, "target", who=Who(account=(platform, user)))
    mine = model.items[model.content.people.events.filter(person=number)["item"].unique()]
    asked = interview.questions(2000)
    assert asked.join(mine, on=["platform", "item"], how="semi").is_empty()
    assert interview.recommend(k=1000).join(mine, on=["platform", "item"], how="semi").is_empty()
    plain = Interview(model, "target")
    assert interview.recommend(k=10)["item"].to_list() != plain.recommend(k=10)["item"].to_list()
    stranger = Interview(model, "target", who=Who(account=("north", "nobody-yet")))
    assert stranger.questions(3).equals(plain.questions(3))


def test_a_ban_keeps_events_out(town: tuple[Split, Recommender, np.ndarray]) -> None:
    model = town[1]
    platform, user, number = model.content.people.accounts.filter(pl.col("platform") == "north").row(3)[:3]
    row = {"person": None, "platform": platform, "user": user, "from_platform": "north", "to_platform": "south"}
    bans = pl.DataFrame([{**row, "allowed": False}], schema=SCHEMA)
    people = model.content.people
    banned = Recommender(replace(model.content, people=replace(people, consents=bans)))
    north = (model.items["platform"] == "north").to_numpy()
    used = [Interview(one, "target", who=Who(account=(platform, user))).known.items for one in (model, banned)]
    assert north[used[0]].any()
    assert not north[used[1]].any()
    assert people.events.filter(person=number).height > used[1].size


def test_wrong_calls_are_explained(town: tuple[Split, Recommender, np.ndarray]) -> None:
    model = town[1]
    interview = Interview(model, "target")
    asked = interview.questions(1)
    with pytest.raises(NotFoundError, match="did you mean 'target'"):
        Interview(model, "targt")
    with pytest.raises(NotFoundError, match="did you mean 'source'"):
        Interview(model, "target", about="sorce")
    with pytest.raises(InputError, match="k = 0"):
        interview.questions(0)
    with pytest.raises(DataError, match="an answer is 'maybe'"):
        interview.questions(1, filled(asked, "maybe"))
    with pytest.raises(DataError, match="lacks column"):
        interview.questions(1, asked)
    with pytest.raises(NotFoundError, match="no item 'north:zz'"):
        interview.recommend(filled(asked, "yes").with_columns(platform=pl.lit("north"), item=pl.lit("zz")))
    with pytest.raises(InputError, match="nothing to ask"):
        Asker(interview.asker.crowds, np.zeros(model.items.height, bool))
    with pytest.raises(DataError, match="nobody met anything"):
        Crowds.of(Histories.of([[], []]), 3)
    for wrong in (lambda: AskSettings(known=-1.0), lambda: CrowdSettings(crowds=0)):
        with pytest.raises(InputError, match="impossible"):
            wrong()


def test_few_people_or_items_still_work() -> None:
    for people in ([[0]], [[0], [0]], [[0, 1]] * 40, [[0], [1], [2]] * 20):
        crowds = Crowds.of(Histories.of(people), 4)
        asker = Asker(crowds, np.ones(4, bool))
        assert crowds.share.sum() == pytest.approx(1)
        assert asker.questions(10).size == len({item for row in people for item in row}), "nobody met the others"
        assert np.isfinite(asker.worth(crowds.share[None])).all()


def test_the_command_line_asks_reads_the_answers_and_lists(
    town: tuple[Split, Recommender, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = text_of("ask.md")
    commands = re.findall(r"^isthmus (.*)$", page, re.M)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    town[1].save(tmp_path / "MODEL")
    account = ":".join(town[1].content.people.accounts.row(0)[:2])
    for command in commands:
        done = isthmus(*command.replace("PLATFORM:USER", account).split())
        assert done.code == 0, done.err
        questions = pl.read_csv("questions.csv", infer_schema=False)
        answer = pl.coalesce(pl.col("answer"), pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("YES ")))
        questions.with_columns(answer).write_csv("answers.csv")
    assert "list of target" in done.out
    (program,) = blocks_of(page, "python")
    exec(compile(program, "ask.md", "exec"), {})
    said = isthmus(
        "ask", "MODEL", "--target", "target", "-k", 2, "--answers", "answers.csv", "--list", 4, "--json"
    ).json
    assert (len(said["questions"]), len(said["list"])) == (2, 4)
    Path("wrong.csv").write_text("platform,item,answer\nnorth,zz,yes\n")
    for words, message in {
        ("--target", "targt"): "did you mean 'target'",
        ("--target", "target", "--answers", "wrong.csv"): "no item 'north:zz'",
        ("--target", "target", "--answers", "none.csv"): "no such file",
        ("--target", "target", "--account", "x"): "PLATFORM:USER",
    }.items():
        done = isthmus("ask", "MODEL", *words)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert message in done.err
