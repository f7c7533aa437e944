"""The import end to end: sources of every kind → a corpus folder with nothing lost on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus

EVENTS = """
[[source]]
kind = "events"
platform = "shop"
domain = "Shop"
path = "log.csv"
columns = { user = "user", item = "item", value = "value", ts = "ts" }
event = "view"
time = { format = "unix_s" }
"""
LOG = "user,item,value,ts\n"


def run(folder: Path, spec: str, *, rows_in_memory: int = 1_000_000, **files: str) -> Corpus:
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(content, encoding="utf-8")
    path = folder / "SPEC.toml"
    path.write_text('name = "test"\n' + spec, encoding="utf-8")
    return import_corpus(path, folder / "corpus", rows_in_memory=rows_in_memory)


def rejects(corpus: Corpus) -> pl.DataFrame:
    assert corpus.path is not None
    return pl.read_parquet(corpus.path / "rejects.parquet")


def test_two_platforms_with_people_items_and_a_graph(tmp_path: Path) -> None:
    spec = """
[clean]
now = 2024-01-01T00:00:00Z
[[source]]
kind = "events"
platform = "书店"
domain = "书"
path = "书.csv"
columns = { user = "用户", item = "书号", value = "评分", ts = "时间" }
event = "rate"
scale = [1, 5]
time = { format = "%Y年%m月%d日 %H:%M", zone = "Asia/Shanghai" }
[[source]]
kind = "events"
platform = "films"
domain = "Films"
path = "films.jsonl"
columns = { user = "who", item = "film", event = "what", ts = "at" }
events = { seen = "play", ad = "ad_click", login = "ignore" }
time = "iso"
[[source]]
kind = "items"
platform = "书店"
domain = "书"
path = "items.csv"
columns = { item = "书号", title = "书名", text = ["作者", "简介"], categories = "类", attributes = ["作者"] }
separator = "|"
[[source]]
kind = "users"
platform = "films"
path = "users.csv"
columns = { user = "id", attributes = ["city"] }
[[source]]
kind = "identities"
platform = "书店"
path = "pairs.csv"
columns = { user = "book", other_platform = "p", other_user = "film" }
[[source]]
kind = "edges"
path = "made by.edgelist"
[[source]]
kind = "links"
platform = "书店"
path = "links.csv"
columns = { item = "b", entity = "e" }
"""
    (tmp_path / "made by.edgelist").write_text("北京折叠 郝景芳\n")
    corpus = run(
        tmp_path,
        spec,
        书_csv="用户,书号,评分,时间\n张三,001,5,2020年01月02日 08:00\n李四,002,3,2020年01月02日 09:30\n",
        films_jsonl='{"who":"z","film":7,"what":"seen","at":"2020-01-02T00:00:00+01:00"}\n'
        '{"who":"z","film":7,"what":"login","at":"2020-01-02T00:00:01Z"}\n'
        '{"who":"z","film":8,"what":"ad","at":"2020-01-03T00:00:00Z"}\n',
        items_csv="书号,书名,作者,简介,类\n001,北京折叠　,郝景芳,<p>三个空间</p>,科幻|小说\n003,无标题,,,\n",
        users_csv="id,city\nz,杭州\n",
        pairs_csv="book,p,film\n张三,films,z\n",
        links_csv="b,e\n001,北京折叠\n",
    )
    events = corpus.events.rows()
    assert events == [
        ("films", "z", "7", "play", None, datetime(2020, 1, 1, 23, tzinfo=UTC)),
        ("films", "z", "8", "ad_click", None, datetime(2020, 1, 3, tzinfo=UTC)),
        ("书店", "张三", "001", "rate", 1.0, datetime(2020, 1, 2, tzinfo=UTC)),
        ("书店", "李四", "002", "rate", 0.5, datetime(2020, 1, 2, 1, 30, tzinfo=UTC)),
    ]
    items = {(row["platform"], row["item"]): row for row in corpus.items.to_dicts()}
    assert items["书店", "001"]["title"] == "北京折叠"
    assert items["书店", "001"]["text"] == "郝景芳 三个空间"
    assert items["书店", "001"]["categories"] == ["科幻", "小说"]
    assert json.loads(items["书店", "001"]["attributes"]) == {"作者": "郝景芳"}
    assert items["书店", "003"]["title"] is None
    assert items["书店", "003"]["attributes"] is None
    assert items["films", "7"]["domain"] == "Films"
    assert corpus.identities.rows() == [
        ("films", "z", "films:z"),
        ("书店", "张三", "films:z"),
        ("书店", "李四", "书店:李四"),
    ]
    assert corpus.users.rows() == [("films", "z", '{"city":"杭州"}')]
    assert corpus.edges.rows() == [("北京折叠", "made by", "郝景芳")]
    assert corpus.links.rows() == [("书店", "001", "北京折叠")]
    assert corpus.manifest["time"] == {"films": "timestamp", "书店": "timestamp"}
    assert corpus.manifest["cleaning"] == {"ignored_events": 1, "text_less_items": 3}
    assert corpus.interactions().height == 3
    assert not (tmp_path / "corpus" / "scratch").exists()


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "", "nan"]),
        st.sampled_from(["x", "y", "z", ""]),
        st.sampled_from(["", "1", "2.5", "bad"]),
        st.sampled_from(["1400000000", "1400000100", "1400009999", "soon", ""]),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from([1_000_000, 7]))
def test_every_row_is_kept_rejected_or_cleaned(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], memory: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = LOG + "".join(",".join(row) + "\n" for row in rows)
    corpus = run(folder, "max_reject_share = 1.0\n" + EVENTS, rows_in_memory=memory, log_csv=text)
    good = {
        (user, item, float(value) if value else None, int(ts))
        for user, item, value, ts in rows
        if user in "abc" and user and item and value != "bad" and ts.isdigit()
    }
    kept = {(u, i, v, int(ts.timestamp())) for _, u, i, _, v, ts in corpus.events.rows()}
    assert kept <= good
    assert {(u, i, ts) for u, i, _, ts in kept} == {(u, i, ts) for u, i, _, ts in good}
    apart = rejects(corpus)
    blank = sum(row == ("", "", "", "") or (row[0] in ("", "nan") and row[1:] == ("", "", "")) for row in rows)
    assert corpus.events.height + apart.height + blank == len(rows)
    assert apart["line"].n_unique() == apart.height
    assert apart["line"].is_between(2, len(rows) + 1).all()


def test_spilled_and_in_memory_give_the_same(tmp_path: Path) -> None:
    lines = [f"u{n * 7919 % 83:02d},i{n * 104729 % 57},,{1_400_000_000 + n * n * 31 % 9_000_017}" for n in range(3_000)]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    parts = {f"log{k}_csv": LOG + "\n".join(lines[k::4]) + "\n" for k in range(4)}
    spec = EVENTS.replace('"log.csv"', '"log*.csv"')
    whole = run(one, spec, **parts)
    spilled = run(two, spec, rows_in_memory=400, **parts)
    assert whole.events.equals(spilled.events)
    assert whole.items.equals(spilled.items)
    assert whole.identities.equals(spilled.identities)
    assert whole.manifest["cleaning"] == spilled.manifest["cleaning"]
    assert rejects(whole).equals(rejects(spilled))
    key = ["platform", "user", "ts"]
    assert spilled.events.select(key).equals(spilled.events.select(key).sort(key))


def test_the_same_input_gives_the_same_fingerprint(tmp_path: Path) -> None:
    log = LOG + "".join(f"u{n % 9},i{n % 13},{n},{1_400_000_000 + n * n}\n" for n in range(200))
    first = run(tmp_path, EVENTS, log_csv=log).fingerprint
    assert run(tmp_path, EVENTS, log_csv=log).fingerprint == first
    assert run(tmp_path, EVENTS, log_csv=log.replace("i3,", "i4,")).fingerprint != first


def test_order_only_counts_on_over_files_and_platforms_of_one_id_space(tmp_path: Path) -> None:
    spec = """
[identity]
same_ids = [["food", "kitchen"]]
[[source]]
kind = "events"
path = "train*.txt"
format = "sequence"
event = "purchase"
sequence = { item_delimiter = "," }
[[source.item_maps]]
path = "food.tsv"
names = ["asin", "index"]
key = "index"
value = "asin"
platform = "food"
domain = "Food"
[[source.item_maps]]
path = "kitchen.tsv"
names = ["asin", "index"]
key = "index"
value = "asin"
offset = 2
platform = "kitchen"
domain = "Kitchen"
"""
    corpus = run(
        tmp_path,
        spec,
        train1_txt="u\t0,2,1\nv\t3\n",
        train2_txt="u\t3,0\n",
        food_tsv="F0\t0\nF1\t1\n",
        kitchen_tsv="K0\t0\nK1\t1\n",
    )
    second = corpus.events.with_columns(pl.col("ts").dt.epoch("s")).select("platform", "user", "item", "ts").rows()
    assert second == [
        ("food", "u", "F0", 0),
        ("food", "u", "F1", 2),
        ("food", "u", "F0", 4),
        ("kitchen", "u", "K0", 1),
        ("kitchen", "u", "K1", 3),
        ("kitchen", "v", "K1", 0),
    ]
    assert corpus.manifest["time"] == {"food": "order", "kitchen": "order"}
    assert corpus.order_only == ["food", "kitchen"]
    assert dict(corpus.items.select("item", "domain").rows())["K1"] == "Kitchen"
    assert corpus.persons.to_list() == ["food:u", "kitchen:v"]


def test_prefixes_keep_equal_numbers_apart(tmp_path: Path) -> None:
    spec = EVENTS + 'prefix = { user = "a-", item = "b-" }\n'
    corpus = run(tmp_path, spec, log_csv=f"{LOG}1,1,,1400000000\n")
    assert corpus.events.select("user", "item").rows() == [("a-1", "b-1")]


ITEMS = (
    '[[source]]\nkind = "items"\nplatform = "shop"\npath = "items.csv"\ncolumns = { item = "id", title = "title" }\n'
)
TWO = f"{LOG}u,known,,1400000000\nu,new,,1400009000\n"


def test_unknown_items_are_kept_without_text_or_dropped(tmp_path: Path) -> None:
    files = {"log_csv": TWO, "items_csv": "id,title\nknown,Tea\nunused,Cup\n"}
    kept = run(tmp_path, EVENTS + ITEMS, **files)
    assert kept.items.select("item", "title", "domain").rows() == [
        ("known", "Tea", "shop"),
        ("new", None, "Shop"),
        ("unused", "Cup", "shop"),
    ]
    dropped = run(tmp_path, '[clean]\nunknown_items = "drop"\nitems = "met"\n' + EVENTS + ITEMS, **files)
    assert dropped.events["item"].to_list() == ["known"]
    assert dropped.items["item"].to_list() == ["known"]
    assert rejects(dropped).select("source", "line", "reason").rows() == [("log.csv", 3, "unknown_items")]
    assert json.loads(rejects(dropped)["raw"][0])["item"] == "new"


def test_not_taste_can_be_dropped(tmp_path: Path) -> None:
    spec = EVENTS.replace('event = "view"', 'events = { pv = "view" }').replace('value = "value"', 'event = "value"')
    log = f"{LOG}u,i,pv,1400000000\nu,j,ad_click,1400005000\nu,k,impression,1400009000\n"
    assert run(tmp_path, spec, log_csv=log).events.height == 3
    corpus = run(tmp_path, '[clean]\nnot_taste = "drop"\n' + spec, log_csv=log)
    assert corpus.events["event"].to_list() == ["view"]
    assert corpus.manifest["cleaning"]["not_taste"] == 2  # type: ignore[index]
    assert rejects(corpus)["line"].to_list() == [3, 4]


def test_bots_leave_no_person(tmp_path: Path) -> None:
    clock = "".join(f"bot,i{n},,{1_400_000_007 + 61 * n}\n" for n in range(100))
    corpus = run(tmp_path, EVENTS, log_csv=f"{LOG}{clock}u,i1,,1400000123\n")
    assert corpus.persons.to_list() == ["shop:u"]
    assert corpus.manifest["cleaning"]["bots"] == 100  # type: ignore[index]
    assert rejects(corpus)["reason"].to_list() == ["bots"] * 100


def test_items_of_several_sources_and_rows(tmp_path: Path) -> None:
    spec = (
        EVENTS
        + ITEMS
        + """
[[source]]
kind = "items"
platform = "shop"
path = "tags.csv"
columns = { item = "id", text = "tag", categories = "tag" }
collect = true
[[source]]
kind = "items"
platform = "shop"
path = "more.jsonl"
columns = { item = "asin", text = "description", categories = "category", attributes = ["details.brand", "price"] }
"""
    )
    corpus = run(
        tmp_path,
        spec,
        log_csv=LOG,
        items_csv="id,title\n1,Tea\n2,\n",
        tags_csv="id,tag\n1,green\n1,hot\n1,green\n",
        more_jsonl='{"asin":"2","description":["Good &amp;","\\"big\\" cup"],"category":[["Home","Cups"],["Home"]],'
        '"details":{"brand":"B"},"price":3}\n',
    )
    one, two = corpus.items.to_dicts()
    assert (one["title"], one["text"], one["categories"]) == ("Tea", "green, hot", ["green", "hot"])
    assert (two["title"], two["text"], two["categories"]) == (None, 'Good & "big" cup', ["Home", "Cups"])
    assert json.loads(two["attributes"]) == {"details.brand": "B", "price": "3"}


def test_shared_keys_join_and_are_never_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_TEST_SECRET", "sixteen characters or more")
    spec = '[identity]\nsecret_env = "ISTHMUS_TEST_SECRET"\n' + EVENTS + EVENTS.replace('"shop"', '"films"')
    for platform in ("shop", "films"):
        spec += (
            f'[[source]]\nkind = "users"\nplatform = "{platform}"\npath = "{platform}.csv"\n'
            'columns = { user = "id", key = "mail" }\n'
        )
    corpus = run(
        tmp_path,
        spec,
        log_csv=f"{LOG}1,i,,1400000000\n2,i,,1400005000\n",
        shop_csv="id,mail\n1,ann@example.org\n2,bob@example.org\n",
        films_csv="id,mail\n2,Ann@Example.org\n1,\n",
    )
    assert dict(
        zip(corpus.identities["user"] + corpus.identities["platform"], corpus.identities["person"], strict=True)
    ) == {
        "1films": "films:1",
        "2films": "films:2",
        "1shop": "films:2",
        "2shop": "shop:2",
    }
    for file in (tmp_path / "corpus").iterdir():
        assert b"example.org" not in file.read_bytes().lower()
        assert b"sixteen characters" not in file.read_bytes()


def test_the_manifest_hides_database_addresses(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("create table log (user text, item integer, value real, ts integer)")
        base.execute("insert into log values ('u', 3, null, 1400000000)")
    base.close()
    spec = EVENTS.replace(
        'path = "log.csv"', f'url = "sqlite:///{tmp_path}/shop.db?secret=1"\nquery = "select * from log"'
    )
    corpus = run(tmp_path, spec.replace("?secret=1", ""))
    assert corpus.events.select("user", "item", "value").rows() == [("u", "3", None)]
    assert "sqlite" not in json.dumps(corpus.manifest)


def test_rejects_keep_source_line_reason_and_raw(tmp_path: Path) -> None:
    good = "".join(f"u,i{n},,{1_400_000_000 + n * n}\n" for n in range(20))
    corpus = run(tmp_path, EVENTS, log_csv=f"{LOG}{good}u,书,很好,1400000000\n")
    assert rejects(corpus).rows() == [
        (
            "log.csv",
            22,
            "value is not a number",
            '{"user":"u","item":"书","value":"很好","ts":"1400000000","@file":"log"}',
        )
    ]
    assert corpus.manifest["rejects"] == {"value is not a number": 1}
