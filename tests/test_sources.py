"""Readers: every row arrives once, with its line, whatever the blocks; broken lines are set apart."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.config import parse
from isthmus.data.sources.base import LINE, blocks
from isthmus.data.sources.readers import files_of, read_source
from isthmus.data.spec import Source, Spec
from isthmus.errors import DataError

BASE = {"kind": "events", "platform": "p", "event": "view", "columns": {"user": "a", "item": "b"}, "time": "order"}


def source(**keys: object) -> Source:
    return parse(Spec, {"name": "x", "source": [{**BASE, **keys}]}, where="SPEC.toml").source[0]


def read(
    tmp_path: Path, content: bytes, *, name: str = "x.csv", **keys: object
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    (tmp_path / name).write_bytes(content)
    batches = list(read_source(source(path=name, **keys), tmp_path / "SPEC.toml"))
    frame = pl.concat([batch.frame for batch in batches])
    return frame.drop("@file"), pl.concat([batch.spoilt for batch in batches]), sum(batch.blank for batch in batches)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    frame, spoilt, blank = read(tmp_path, b'a,b\n1,x\n\n2,"y\nz"\n3,w\n4,v,5\n6,u\n')
    assert frame.rows() == [("1", "x", 2), ("2", "y\nz", 4), ("3", "w", 6), ("6", "u", 8)]
    assert spoilt.select(LINE, "reason").rows() == [(7, "too many fields")]
    assert blank == 1


def test_an_open_quote_costs_one_line(tmp_path: Path) -> None:
    frame, spoilt, _ = read(tmp_path, b'a,b\n1,"x\n2,y\n3,z\n')
    assert frame["a"].to_list() == ["2", "3"]
    assert spoilt.rows() == [(2, "unclosed quote", '1,"x')]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_recognised_by_content(tmp_path: Path, pack: object) -> None:
    frame, _, _ = read(tmp_path, pack(b"a,b\n1,x\n"))  # type: ignore[operator]
    assert frame.rows() == [("1", "x", 2)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "big5", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    frame, _, _ = read(tmp_path, "a,b\n一,書本\n".encode(encoding), encoding=encoding)
    assert frame.rows() == [("一", "書本", 2)]


def test_long_delimiters_names_and_skipped_lines(tmp_path: Path) -> None:
    frame, _, _ = read(
        tmp_path, b"# made by x\n# v2\n1::x::9\n2::y\n", delimiter="::", names=["a", "b", "c"], skip_lines=2
    )
    assert frame.rows() == [("1", "x", "9", 3), ("2", "y", "", 4)]


def test_tabs_have_no_quotes_by_default(tmp_path: Path) -> None:
    frame, _, _ = read(tmp_path, b'a\tb\n1\t"Heroes" live\n', name="x.tsv")
    assert frame["b"].to_list() == ['"Heroes" live']


cell = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=["Cs"]), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=25), st.integers(1, 200))
def test_any_csv_in_any_blocks_is_read_as_the_csv_module_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], size: int
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "b"), *rows])
    folder = tmp_path_factory.mktemp("csv")
    (folder / "x.csv").write_text(text.getvalue(), newline="")
    parts = list(blocks(folder / "x.csv", quote='"', size=size))
    assert b"".join(part.data for part in parts) == text.getvalue().encode()
    assert [part.first_line for part in parts] == [
        1 + b"".join(part.data for part in parts[:n]).count(b"\n") for n in range(len(parts))
    ]
    frame, spoilt, _ = read(folder, text.getvalue().encode())
    assert frame.select("a", "b").rows() == rows
    assert spoilt.is_empty()


def test_blocks_do_not_end_inside_quotes(tmp_path: Path) -> None:
    rows = b"".join(b'%d,"two\nlines"\n' % n for n in range(50))
    (tmp_path / "x.csv").write_bytes(rows)
    parts = [part.data for part in blocks(tmp_path / "x.csv", quote='"', size=64)]
    assert len(parts) > 5
    assert all(part.count(b'"') % 2 == 0 for part in parts)


def test_jsonl_reaches_into_objects_and_mends_python_notation(tmp_path: Path) -> None:
    lines = [
        json.dumps({"a": 1, "b": "x", "c": {"d": ["e", "f"]}}),
        "",
        "{'a': u'O\\'Neil', 'b': None, 'c': {'d': 'g'}}",
        '{"a": NaN, "b": "z"}',
        "[1]",
        "{oops",
        '{"q": 1}',
    ]
    frame, spoilt, blank = read(
        tmp_path, "\n".join(lines).encode(), name="x.jsonl", columns={"user": "a", "item": "b", "value": "c.d"}
    )
    assert frame.select(LINE, "a", "b", "c.d").rows() == [
        (1, "1", "x", '["e","f"]'),
        (3, "O'Neil", None, "g"),
        (4, None, "z", None),
    ]
    assert spoilt[LINE].to_list() == [5, 6]
    assert blank == 2


def test_json_objects_and_arrays(tmp_path: Path) -> None:
    columns = {"user": "@key", "item": "@value"}
    frame, _, _ = read(tmp_path, '{"1": "书", "2": {"b": 3}}'.encode(), name="x.json", columns=columns)
    assert frame.rows() == [(1, "1", "书"), (2, "2", None)]
    frame, _, _ = read(tmp_path, b'[{"a": 1, "b": 2}]', name="x.json")
    assert frame.rows() == [(1, "1", "2")]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    table = io.BytesIO()
    pl.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, 2.5]}).write_parquet(table)
    frame, _, _ = read(tmp_path, table.getvalue(), name="x.parquet")
    assert frame.rows() == [(1, "x", 1), (2, None, 2)]
    with pytest.raises(DataError, match=r"no column 'aa' .*did you mean 'a'"):
        read(tmp_path, table.getvalue(), name="x.parquet", columns={"user": "aa", "item": "b"})


def test_sequences(tmp_path: Path) -> None:
    frame, spoilt, blank = read(
        tmp_path,
        b"u1\t5,3,5\n\nu2\t\nu3\t7\n",
        name="s.txt",
        format="sequence",
        sequence={"item_delimiter": ","},
        columns={},
    )
    assert frame.rows() == [(1, "u1", "5"), (1, "u1", "3"), (1, "u1", "5"), (4, "u3", "7")]
    assert spoilt.select(LINE, "reason").rows() == [(3, "no items in the line")]
    assert blank == 1


def test_sequences_with_entries(tmp_path: Path) -> None:
    entry = {"skip_fields": 1, "entry": {"delimiter": "|", "fields": ["item", "ts"]}}
    frame, _, _ = read(
        tmp_path,
        b"u\t2\t9|100|x|\t8|200|y|\n",
        name="s.txt",
        format="sequence",
        sequence=entry,
        columns={},
        time="unix_s",
    )
    assert frame.rows() == [(1, "u", "9", "100"), (1, "u", "8", "200")]


def test_sql_in_batches(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "x.db") as base:
        base.execute("create table log (a text, b integer, c real)")
        base.executemany("insert into log values (?, ?, ?)", [(f"u{n}", n, None if n % 2 else n / 2) for n in range(7)])
    base.close()
    reading = source(url=f"sqlite:///{tmp_path}/x.db", query="select * from log order by b")
    frame = pl.concat([batch.frame for batch in read_source(reading, tmp_path / "S.toml")])
    assert frame["b"].to_list() == list(range(7))
    assert frame[LINE].to_list() == list(range(1, 8))
    assert frame["c"].null_count() == 3


def test_files_of_a_pattern_are_sorted_and_named(tmp_path: Path) -> None:
    for name in ("l-2.csv", "l-1.csv.gz"):
        (tmp_path / name).write_bytes(b"a,b\n1,x\n")
    assert [path.name for path in files_of("l-*", tmp_path / "S.toml")] == ["l-1.csv.gz", "l-2.csv"]
    batches = list(read_source(source(path="l-*", columns={"user": "@file", "item": "b"}), tmp_path / "S.toml"))
    assert [batch.frame["@file"][0] for batch in batches] == ["l-1", "l-2"]
