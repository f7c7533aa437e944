"""The report: its data, its page, and how the page looks in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.errors import ArtefactError, DataError, InputError
from isthmus.evaluate.cards import data_card, examples, machine_card
from isthmus.evaluate.page import number
from isthmus.evaluate.plots import Scale, bar, interval
from isthmus.evaluate.protocol import judge
from isthmus.evaluate.report import Cards, Report, plain
from isthmus.evaluate.sections import Section
from isthmus.rng import generator
from isthmus.split.task import Task

BOOKS, FILMS, P = 50, 20, 120
HOSTILE = "<script>alert('x')</script> & “引号”"
TITLES = ["三体", "红楼梦", HOSTILE, "Pride and Prejudice", "活着：一个关于命运与忍耐的漫长故事，讲述一个人和他的一生"]


@pytest.fixture(scope="module")
def corpus():
    title = [TITLES[i] if i < len(TITLES) else (f"Book {i}" if i != 9 else None) for i in range(BOOKS)]
    items = pl.DataFrame(
        {
            "platform": ["书店"] * 30 + ["kiosk"] * 20 + ["cinema"] * FILMS,
            "item": [f"b{i:02}" for i in range(BOOKS)] + [f"f{i:02}" for i in range(FILMS)],
            "domain": ["books"] * BOOKS + ["films"] * FILMS,
            "title": title + [f"电影 {i}" for i in range(FILMS)],
        }
    )
    events = items.head(3).select("platform", "item", user=pl.lit("u"), event=pl.lit("view"))
    return Corpus.from_tables(
        {"items": items, "events": events.with_columns(ts=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)))}, name="小镇"
    )


@pytest.fixture(scope="module")
def task(corpus):
    rng = generator(1, "report")
    rows = [rng.permutation(BOOKS + FILMS)[: rng.integers(1, 9)].tolist() for _ in range(P)]
    items = np.flatnonzero((corpus.items["domain"] == "books").to_numpy()).astype(np.int32)
    wanted = [sorted({(row[0] * 7) % BOOKS, (row[-1] * 7) % BOOKS}) for row in rows]
    platform = corpus.items["platform"].gather(items)
    return Task(
        domain="books",
        part="test",
        items=items,
        persons=np.arange(P),
        histories=Histories.of(rows),
        target_indptr=np.concatenate([[0], np.cumsum([len(row) for row in wanted])]),
        targets=np.array([c for row in wanted for c in row], np.int32),
        popularity=rng.integers(0, 40, BOOKS),
        train_persons=P,
        exclude_seen=True,
        cohorts={"cold person": np.array([len(row) < 3 for row in rows]), "overlap": np.arange(P) % 3 > 0},
        item_groups={
            "new item": np.arange(BOOKS) % 9 == 0,
            **{f"platform {name}": (platform == name).to_numpy() for name in ("kiosk", "书店")},
        },
    )


class System:
    """A random linear method with a signal of given strength."""

    def __init__(self, name, strength, seed=0):
        self.name, self.strength, self.seed = name, strength, seed

    def score(self, histories):
        n = BOOKS + FILMS
        ideal = np.equal.outer((np.arange(n) * 7) % BOOKS, np.arange(BOOKS))
        noise = generator(self.seed, self.name).random((n, BOOKS))
        return np.asarray(histories.matrix(n) @ (noise + self.strength * ideal).astype(np.float32))


@pytest.fixture(scope="module")
def report(corpus, task):
    systems = [System("blend", 0.9), System("EASE", 0.6), System("共现 kNN", 0.5), System("popularity", 0.0)]
    outcomes = [judge(system, task, both=True) for system in systems]
    section = Section(
        outcomes,
        main="blend",
        title="Books 书",
        vectors=np.eye(BOOKS, dtype=np.float32),
        blend={
            "cold person": {"EASE": 0.7, "共现 kNN": 0.3},
            "warm person": {"EASE": 1.0, "popularity": -0.1},
            "note": 1,
        },
        tuning=[
            {"method": "EASE", "settings": {"regulariser": 500}, "ndcg@10": 0.1},
            {"method": "共现 kNN", "seconds": 2},
        ],
        seeds=[judge(System("blend", 0.9, seed), task) for seed in range(3)],
        examples=examples(outcomes[0], corpus, persons=4, k=5),
    )
    cards = Cards(
        "Town: 图书与电影",
        protocol={"protocol": "time", "cuts": {"test": "2024-01-01"}, "domains": ["books", "films"]},
        data=data_card(corpus),
        audit=[{"flag": "tied timestamps", "count": 12, "detail": "中文 <b>bold</b>"}],
        notes=["A simulated town."],
    )
    return Report.build(cards, [section, replace(section, title="Again", seeds=(), blend={}, tuning=(), examples=())])


def test_the_data_is_json_and_comes_back(report, tmp_path):
    report.save(tmp_path / "r")
    text = (tmp_path / "r" / "report.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) == report.data
    again = Report.open(tmp_path / "r")
    assert again.data == report.data
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8") == report.html
    report.save(tmp_path / "r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["report.html", "report.json"]


def test_the_data_holds_what_was_measured(report, task):
    section = report.data["sections"][0]
    assert section["systems"][0]["name"] == "blend"
    outcome = judge(System("EASE", 0.6), task, both=True)
    ease = next(row for row in section["systems"] if row["name"] == "EASE")
    for name in outcome.metrics:
        found = ease["metrics"][name]
        assert found["mean"] == pytest.approx(outcome.mean(name))
        assert found["low"] <= found["mean"] <= found["high"]
    assert ease["opposite"]["ndcg@10"] == pytest.approx(outcome.other.mean("ndcg@10"))
    assert ease["test"]["p_holm"] >= ease["test"]["p"]
    assert set(ease["lists"]) == {"10", "50"}
    assert ease["lists"]["10"]["diversity"] == pytest.approx(1.0)
    assert {part["name"]: part["n"] for part in section["slices"]}["overlap"] == int(task.cohorts["overlap"].sum())
    assert section["unreachable"] == task.unreachable
    assert section["seeds"][0]["seeds"] == 3
    assert report.data["data"]["fingerprint"]


def test_the_page_needs_nothing_else_and_escapes(report):
    page = report.html
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>bold</b>" not in page
    for word in (
        "Town: 图书与电影",
        "共现 kNN",
        "三体",
        "platform 书店",
        "No flags" if not report.data["audit"] else "tied",
    ):
        assert word in page
    assert "prefers-color-scheme: dark" in page


def test_the_examples_name_titles_and_mark_hits(corpus, task):
    outcome = judge(System("blend", 5.0), task)
    found = examples(outcome, corpus, persons=6, k=5)
    assert found == examples(outcome, corpus, persons=6, k=5)
    assert len(found) == 6
    assert any(row["hit"] for example in found for row in example["list"])
    titles = corpus.items["title"].to_list()
    for example in found:
        assert {row["title"] for row in example["list"] if row["hit"]} <= set(example["targets"])
        assert len(example["list"]) == 5
        assert set(example["history"]) <= {"书店", "kiosk", "cinema"}
        assert all(title in titles or title.endswith(":b09") for title in example["targets"])


def test_a_title_is_never_empty(corpus, task):
    shown = {row["title"] for e in examples(judge(System("a", 1), task), corpus, persons=P) for row in e["list"]}
    assert any(title.endswith(":b09") for title in shown)
    assert None not in shown


def test_nothing_and_a_single_system(task):
    assert "Not made." in Report.build(Cards("Empty"), []).html
    assert "No flags." in Report.build(Cards("Empty", audit=[]), []).html
    alone = Report.build(Cards("One"), [Section([judge(System("a", 1), task)], main="a")])
    assert "best other" not in re.sub(
        r"<details>.*?</details>|<p class=.caption.>.*?</p>|<th.*?</th>", "", alone.html, flags=re.S
    )


def test_what_cannot_be_reported_is_refused(task, tmp_path):
    outcome = judge(System("a", 1), task)
    with pytest.raises(DataError, match="no metric 'ndcg@7'"):
        Report.build(Cards("x"), [Section([outcome], main="a")], metric="ndcg@7")
    with pytest.raises(DataError, match="no system 'b'"):
        Report.build(Cards("x"), [Section([outcome], main="b")])
    with pytest.raises(DataError, match="at least one"):
        Report.build(Cards("x"), [Section([], main="b")])
    with pytest.raises(ArtefactError, match="is not a report"):
        Report.open(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text('{"format": 0}')
    with pytest.raises(ArtefactError, match="format 0"):
        Report.open(tmp_path / "old")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(InputError, match="not written by isthmus"):
        Report.build(Cards("x"), []).save(tmp_path / "mine")


def test_the_machine_card_tells_versions_and_no_names():
    card = machine_card()
    assert {"isthmus", "numpy", "polars"} <= set(card["versions"])
    assert not re.search(r"/(home|root|work|tmp)", json.dumps(card))


def test_plain_values():
    given = {
        "a": np.float32(0.5),
        "b": np.array([1, 2]),
        "c": [np.nan, np.inf],
        "d": np.bool_(True),
        "e": Path("x"),
        3: None,
    }
    assert plain(given) == {"a": 0.5, "b": [1, 2], "c": [None, None], "d": True, "e": "x", "3": None}


@pytest.mark.parametrize("values", [[0.02, 0.171], [-0.4, 0.3], [5.0], [0.0], [], [None, float("nan")], [1e-7, 3e-7]])
def test_scales_hold_their_values_between_round_ticks(values):
    scale = Scale.over(values)
    known = [value for value in values if value is not None and value == value]
    assert all(scale.low <= value <= scale.high for value in [0.0, *known])
    assert 2 <= len(scale.ticks) <= 7
    assert scale.at(scale.low) < scale.at(scale.high)


def test_marks_stand_where_the_axis_says():
    scale = Scale.over([0.0, 0.2])
    mark = interval(scale, (0.1, 0.05, 0.15), kind="main")
    assert 'cx="50.0%"' in mark
    assert 'x1="27.0%" x2="73.0%"' in mark
    assert "no value" in interval(scale, (None, None, None))
    assert 'x="4.0%" width="46.0%"' in bar(scale, 0.1)
    assert interval(scale, (0.0, -1.0, 0.0)).count("0.0000") > 0


def test_numbers_are_written_alike():
    assert [number(v) for v in (None, True, 1234, 0.5, "x")] == ["–", "yes", "1,234", "0.5000", "x"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, report, tmp_path, width, scheme):
    report.save(tmp_path / "r")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "r" / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert problems == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_text("三体").count()
    assert page.evaluate(CONTRAST) >= 4.5
    dots = page.evaluate("[...document.querySelectorAll('.dot')].map(d => d.getBoundingClientRect().width)")
    assert dots
    assert min(dots) > 5
    page.close()


#: Contrast of the text to the page's ground (WCAG 2.2).
CONTRAST = """() => {
  const light = c => { const v = c.match(/[0-9.]+/g).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return .2126*v[0] + .7152*v[1] + .0722*v[2]; };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('h1, p, th, td, .soft, a, summary, .win, .loss, dt')].map(e => {
    const text = light(getComputedStyle(e).color);
    return (Math.max(text, ground) + .05) / (Math.min(text, ground) + .05); }));
}"""
