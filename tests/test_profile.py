"""A profile names what is planted, shows the events for it, and says nothing it must not say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Formatter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pages import blocks_of, text_of
from tests.small import corpus, day
from tests.test_cli import isthmus

from isthmus.data.corpus import Corpus
from isthmus.data.phrases import GRAMMARS
from isthmus.data.simulate import TOWN, town
from isthmus.data.simulate.worlds import Plan, draw
from isthmus.errors import InputError, NotFoundError
from isthmus.recommender import Recommender
from isthmus.recommender.prices import prices
from isthmus.recommender.profile import Profiler, ProfileSettings, Who, profile
from isthmus.recommender.profile_terms import shrunk
from isthmus.recommender.profile_words import WORDS
from isthmus.recommender.protected import PROTECTED, names_protected
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings

QUICK = FitSettings(methods=("popularity",))


def fitted(built: Corpus, protocol: str = "time") -> Recommender:
    split = Split.make(built, protocol=protocol, valid_share=0.1, test_share=0.0)  # type: ignore[arg-type]
    return Recommender.fit(split, settings=QUICK)


@pytest.fixture(scope="module")
def model() -> Recommender:
    return fitted(Corpus.from_tables(town(3, persons=150).tables, name="town"))


@pytest.fixture(scope="module")
def busy(model: Recommender) -> Who:
    """Somebody on two platforms with many events."""
    accounts = model.content.people.accounts.filter(pl.len().over("person") > 1)
    counts = model.content.people.events.group_by("person").len()
    row = accounts.join(counts, on="person").sort("len", "platform").row(-1)
    return Who(account=(row[0], row[1]))


def test_the_planted_tastes_are_found_and_no_others() -> None:
    """Half or more of the interests that are sure are tastes of the person; in a town without tastes hardly any are."""
    hits, sure = {}, {}
    for loyalty in (0.95, 0.0):
        world = draw(Plan(places=TOWN[:2], persons=120, chinese=0.0, loyalty=loyalty, meetings=25.0), 1)
        model = fitted(Corpus.from_tables(world.tables, name="town"))
        shelf = world.tables["items"].join(world.themes, on=["platform", "item"]).explode("categories")
        theme_of = dict(shelf.select("categories", "theme").unique().iter_rows())
        profiler, found, liked = Profiler(model), [], 0
        for platform, user, person in world.tables["identities"].head(30).iter_rows():
            names = [
                one.name for one in profiler.profile(Who(account=(platform, user))).interests
                if one.low > 1 and one.kind == "category"
            ]  # fmt: skip
            tastes = set(world.tastes.filter(pl.col("person") == person)["theme"])
            found += names
            liked += sum(theme_of[name] in tastes for name in names)
        hits[loyalty], sure[loyalty] = liked / max(len(found), 1), len(found) / 30
    assert hits[0.95] > 0.95
    assert 0.7 < sure[0.95] < 3
    assert sure[0.0] < 0.2


def test_it_says_how_much_of_what_since_when(model: Recommender, busy: Who) -> None:
    found = profile(model, busy)
    people = model.content.people
    number = people.accounts.filter(platform=busy.account[0], user=busy.account[1])["person"][0]
    mine = people.events.filter(person=number)
    assert (found.events, found.items) == (mine.height, mine["item"].n_unique())
    assert (found.first, found.last) == tuple(str(mine["ts"].dt.date().sort()[place]) for place in (0, -1))
    assert set(found.accounts) == set(people.accounts.filter(person=number).select("platform", "user").rows())
    assert sum(one.events for one in found.platforms) == found.events
    assert sum(one.share for one in found.platforms) == pytest.approx(1, abs=1e-3)
    assert sum(period.events for period in found.periods) == found.events
    assert [period.name for period in found.periods] == sorted(period.name for period in found.periods)
    assert set(found.languages) == {"en", "zh"}
    assert sum(found.hours.values()) == pytest.approx(1, abs=1e-3)


def test_every_piece_of_evidence_is_an_event_of_the_person(model: Recommender, busy: Who) -> None:
    found = profile(model, busy)
    number = model.content.people.accounts.filter(platform=busy.account[0], user=busy.account[1])["person"][0]
    mine = model.content.people.events.filter(person=number)
    rows = model.items.select("platform", "item", "title", "categories").with_row_index("index")
    met = mine.join(rows.rename({"item": "id"}), left_on="item", right_on="index")
    days = {(row["platform"], row["id"], str(row["ts"].date())) for row in met.iter_rows(named=True)}
    categories = {(row["platform"], row["id"]): row["categories"] for row in met.iter_rows(named=True)}
    assert found.interests
    for interest in found.interests:
        assert 0 < len(interest.evidence) <= 3
        assert interest.lift > 1
        assert interest.low < interest.lift
        for one in interest.evidence:
            assert (one.platform, one.item, one.date) in days
            if interest.kind == "category":
                assert interest.name in categories[(one.platform, one.item)]


def naive(model: Recommender, number: int, category: str) -> tuple[float, float]:
    """Return the observed and expected weight of a category, event by event."""
    best: dict[tuple[int, int], float] = {}
    for person, item, weight in model.content.people.events.select("person", "item", "weight").iter_rows():
        best[person, item] = max(best.get((person, item), 0.0), weight)
    items = model.items.select("platform", "categories").rows()
    observed = expected = 0.0
    for platform in {platform for platform, _ in items}:
        here = {key: weight for key, weight in best.items() if items[key[1]][0] == platform}
        with_it = sum(weight for (_, item), weight in here.items() if category in items[item][1])
        mine = {item: weight * len(here) / sum(here.values()) for (who, item), weight in here.items() if who == number}
        observed += sum(weight for item, weight in mine.items() if category in items[item][1])
        expected += sum(mine.values()) * with_it / sum(here.values())
    return observed, expected


def test_the_lift_is_observed_against_expected(model: Recommender, busy: Who) -> None:
    interest = profile(model, busy).interests[0]
    number = model.content.people.accounts.filter(platform=busy.account[0], user=busy.account[1])["person"][0]
    observed, expected = naive(model, number, interest.name)
    assert interest.lift == pytest.approx((observed + 0.5) / (expected + 0.5), abs=1e-3)


@settings(deadline=None)
@given(st.floats(0, 50), st.floats(0, 50))
def test_a_lift_lies_inside_its_bounds_and_no_event_says_nothing(observed: float, expected: float) -> None:
    ratio, low, high = shrunk(np.array([observed]), np.array([expected]), 0.025)
    assert low[0] < high[0]
    assert low[0] < ratio[0]
    assert shrunk(np.zeros(1), np.zeros(1), 0.025)[0][0] == 1.0


def log(user: str, rows: list[tuple[str, float]], platform: str = "shop") -> list[tuple[str, str, str, float]]:
    return [(platform, user, item, when) for item, when in rows]


def shelved(events: list[tuple[str, str, str, float]], shelves: dict[str, str], **options: object) -> Corpus:
    """Return a small corpus in which the first letter of an item tells its category."""
    built = corpus(events, **options)  # type: ignore[arg-type]
    letter = pl.col("item").str.slice(0, 1).replace_strict(shelves, default=None, return_dtype=pl.String)
    items = built.items.with_columns(categories=pl.when(letter.is_not_null()).then(pl.concat_list(letter)))
    tables = {"events": built.events, "items": items, "users": built.users, "identities": built.identities}
    return Corpus.from_tables(tables, name="shelved", notes={"time": built.manifest.get("time", {})})


SHELVES = {"a": "Tea", "b": "Robots", "c": "Women's health"}
CROWD = [("shop", f"u{n}", f"{x}{n % 5}", 0.5 * n) for n in range(12) for x in "abcabb"[n % 4 : n % 4 + 3]]


def turned() -> list[tuple[str, str, str, float]]:
    """Somebody who met tea for a year and robots in the last days."""
    rows = [(f"a{n % 9}", 30.0 * n) for n in range(12)] + [(f"b{n}", 350.0 + n) for n in range(6)]
    return log("turn", rows)


def test_what_rises_and_falls_is_seen() -> None:
    found = profile(fitted(shelved([*CROWD, *turned()], SHELVES)), Who(account=("shop", "turn")))
    trends = {one.name: one.trend for one in found.interests}
    shares = {one.name: (one.short, one.long) for one in found.interests}
    assert trends.get("Robots") == "rising" or shares["Robots"][0] > shares["Robots"][1]
    assert shares["Tea"][0] < shares["Tea"][1]
    assert trends["Tea"] == "falling"
    assert found.periods[0].interests[0] == "Tea"
    assert "Robots" in found.periods[-1].interests


def test_an_order_without_dates_has_no_dates_but_a_long_and_a_short_term() -> None:
    events = [(p, u, i, w / 86_400 - day(0).timestamp() / 86_400) for p, u, i, w in [*CROWD, *turned()]]
    model = fitted(shelved(events, SHELVES, order=("shop",)), "leave-last")
    found = profile(model, Who(account=("shop", "turn")))
    assert (found.first, found.last, found.periods, found.hours) == (None, None, (), {})
    tea = next(one for one in found.interests if one.name == "Tea")
    assert tea.short < tea.long
    assert all(one.date is None for one in tea.evidence)
    assert "None" not in found.tell("en") + found.tell("zh")


SAID = '{{"gender": "f", "religion": "buddhist", "health": "diabetes", "age": {}}}'


def test_attributes_of_users_are_never_read() -> None:
    users = {"turn": SAID.format(61), "u1": SAID.format(20)}
    with_them, without = (
        profile(fitted(shelved([*CROWD, *turned()], SHELVES, users=given)), Who(account=("shop", "turn")))
        for given in (users, {})
    )
    assert with_them == without


def test_protected_attributes_are_never_named() -> None:
    titles = {f"c{n}": "Gay men's prayer book" for n in range(9)}
    rows = [*CROWD, *log("devout", [(f"c{n}", 1.0 + n) for n in range(9)]), *turned()]
    model = fitted(shelved(rows, SHELVES, titles=titles))
    found = profile(model, Who(account=("shop", "devout")))
    assert found.items == 9, "all that was met is women's health"
    assert not [one for one in found.interests if one.kind == "category"]
    texts = [json.dumps(found.data, ensure_ascii=False), *(found.tell(language) for language in WORDS)]
    for text in texts:
        assert not names_protected(pl.Series([text]))[0], text


@pytest.mark.parametrize("attribute", PROTECTED)
def test_each_protected_attribute_has_words_in_both_languages(attribute: str) -> None:
    english, chinese = PROTECTED[attribute]
    words = [word.rstrip("*") for word in english.split()] + chinese.split()
    assert len(words) > 4
    assert names_protected(pl.Series([f"the {word} shelf" for word in words])).all()
    harmless = ["Hamlet", "Romance", "Ironman", "Manga", "Sussex", "Harmony", "茶", "机器人", "人类", ""]
    assert not names_protected(pl.Series(harmless)).any()


def test_nobody_known_is_told_apart_from_a_wrong_name(model: Recommender) -> None:
    platform, user, name = model.content.people.accounts.select("platform", "user", "name").row(0)
    by_name, by_account = (profile(model, who) for who in (Who(person=name), Who(account=(platform, user))))
    assert by_name.person == name
    assert (by_name.interests, by_name.accounts) == (by_account.interests, by_account.accounts)
    nobody = profile(model, Who(account=("bookshop", "谁")))
    assert (nobody.events, nobody.interests, nobody.accounts) == (0, (), ())
    assert WORDS["en"]["nothing"] in nobody.tell()
    assert WORDS["zh"]["nothing"] in nobody.tell("zh")
    with pytest.raises(NotFoundError, match="did you mean 'bookshop'"):
        profile(model, Who(account=("bokshop", "x")))
    with pytest.raises(NotFoundError, match="person"):
        profile(model, Who(person="nobody-at-all"))
    with pytest.raises(InputError, match="impossible"):
        ProfileSettings(days=(0.0, 1.0))


def test_items_without_any_text_still_give_a_profile() -> None:
    rows = [*log("quiet", [("x1", 1.0), ("x2", 2.0)]), *log("z", [("x1", 3.0), ("x3", 4.0), ("x4", 30.0)])]
    found = profile(
        fitted(shelved(rows, {}, titles=dict.fromkeys(("x1", "x2", "x3", "x4")))), Who(account=("shop", "z"))
    )
    assert found.interests == ()
    assert [one.title for one in found.lately] == ["x4", "x3", "x1"], "the id stands in"
    assert WORDS["en"]["none"] in found.tell()


def test_one_event_makes_nothing_sure() -> None:
    found = profile(fitted(shelved([*CROWD, *log("one", [("b1", 3.0)])], SHELVES)), Who(account=("shop", "one")))
    assert found.events == 1
    assert all(one.low < 1 for one in found.interests)
    assert found.interests == () or WORDS["en"]["unsure"] in found.tell()


def test_a_very_busy_person_takes_no_time() -> None:
    import time

    some = [("shop", "bot", f"a{n % 2000}", n / 100) for n in range(20_000)]
    model = fitted(shelved([*CROWD, *some], SHELVES))
    start = time.process_time()
    found = profile(model, Who(account=("shop", "bot")))
    assert time.process_time() - start < 3
    assert found.items == 2000


def test_prices_give_a_range_in_the_currency_of_most() -> None:
    attributes = {f"a{n}": json.dumps({"price": price}) for n, price in enumerate(["$5", "$10.00", "$15", "€99", None])}
    attributes |= {f"b{n}": json.dumps({"price": f"${100 + n}"}) for n in range(5)}
    cheap = log("cheap", [(f"a{n}", 1.0 + n) for n in range(5)])
    model = fitted(shelved([*CROWD, *cheap], SHELVES, attributes=attributes))
    price = profile(model, Who(account=("shop", "cheap"))).platforms[0].price
    assert price is not None
    assert (price.n, price.currency, price.median) == (3, "USD", 10.0)
    assert 5 <= price.low < price.median < price.high <= 15
    assert 0.05 < price.level < 0.5


PRICES = {
    "12.99": (12.99, None), "$1,299.00": (1299.0, "USD"), "1.299,00 €": (1299.0, "EUR"), "EUR 12,5": (12.5, "EUR"),
    "¥88–¥120": (104.0, "CNY"), "88元": (88.0, "CNY"), "1 299,00 €": (1299.0, "EUR"), "1'299.50": (1299.5, None),
    "3,000": (3000.0, None), "1,234,567": (1234567.0, None), "免费": (0.0, None), "Free": (0.0, None),
    "US$ 10 to US$ 20": (15.0, "USD"), "call us": (None, None), "": (None, None),
}  # fmt: skip


@pytest.mark.parametrize("text", PRICES)
def test_prices_are_read_as_they_are_written(text: str) -> None:
    items = pl.DataFrame({"attributes": [json.dumps({"price": text}, ensure_ascii=False)]})
    assert prices(items).row(0) == PRICES[text]


PATTERNS = ["{:,.2f}", "{:.2f}", "£{:,.2f}", "{:.2f} EUR"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**8), st.sampled_from(PATTERNS)), max_size=40))
def test_any_price_comes_back(cases: list[tuple[int, str]]) -> None:
    texts = [json.dumps({"price": pattern.format(cents / 100)}, ensure_ascii=False) for cents, pattern in cases]
    found = prices(pl.DataFrame({"attributes": texts}, schema={"attributes": pl.String}))["price"].to_list()
    assert found == pytest.approx([cents / 100 for cents, _ in cases], abs=1e-9)


def test_both_languages_say_the_same_things() -> None:
    assert set(WORDS) == set(GRAMMARS)
    assert set(WORDS["en"]) == set(WORDS["zh"])
    for name, english in WORDS["en"].items():
        fields = [{field for _, field, _, _ in Formatter().parse(text)} for text in (english, WORDS["zh"][name])]
        assert fields[0] - {None} == fields[1] - {None}, name


@pytest.fixture(scope="module")
def folder(model: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "MODEL"
    model.save(path)
    return path


def test_the_command_line_tells_writes_and_refuses(folder: Path, busy: Who, tmp_path: Path) -> None:
    account = ":".join(busy.account)
    english = isthmus("profile", folder, "--account", account)
    assert english.code == 0, english.err
    assert f"Profile of {account}" in english.out
    chinese = isthmus("profile", folder, "--account", account, "--language", "zh", "--out", tmp_path / "p.txt")
    assert chinese.code == 0
    assert "的画像" in (tmp_path / "p.txt").read_text(encoding="utf-8")
    said = isthmus("profile", folder, "--account", account, "--json", "--out", tmp_path / "p.json")
    assert said.json == json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert said.json["interests"][0]["evidence"]
    wrong = {(): "one person", ("--account", "x"): "PLATFORM:USER", ("--account", "s:x"): "platform"}
    for words, message in wrong.items():
        done = isthmus("profile", folder, *words)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert message in done.err


def test_the_page_is_true(folder: Path, busy: Who, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of("profile.md")
    page = page.replace("PLATFORM:USER", ":".join(busy.account)).replace('"PLATFORM", "USER"', str(busy.account)[1:-1])
    commands = re.findall(r"^isthmus (.*)$", page, re.M)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").symlink_to(folder)
    for command in commands:
        done = isthmus(*command.split())
        assert done.code == 0, done.err
    (program,) = blocks_of(page, "python")
    exec(compile(program, "profile.md", "exec"), {})
