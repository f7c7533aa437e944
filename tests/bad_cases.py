"""Broken specs and files, each with the message it gets: one table for the tests and for the report."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from isthmus.data.importer import import_corpus
from isthmus.errors import IsthmusError

HEAD = b"user,item,rating,ts\n"
ROWS = b"".join(b"u%d,i%d,%d,%d\n" % (n % 7, n, n % 5 + 1, 1_400_000_000 + 977 * n * n) for n in range(60))
GOOD = HEAD + ROWS
SOURCE = {
    "kind": '"events"',
    "platform": '"shop"',
    "path": '"log.csv"',
    "event": '"rate"',
    "columns": '{ user = "user", item = "item", value = "rating", ts = "ts" }',
    "time": '{ format = "unix_s" }',
}


def spec(top: str = 'name = "bad"', *, tail: str = "", **source: str | None) -> str:
    """Return a spec with one source; a key given as None is left out."""
    keys = {**SOURCE, **source}
    body = "\n".join(f"{key} = {value}" for key, value in keys.items() if value is not None)
    return f"{top}\n[[source]]\n{body}\n{tail}"


@dataclass(frozen=True)
class Case:
    """One broken input.

    ``message`` is a part of the error's text, or of a reason in the rejects when ``works`` is true: then the import
    succeeds and the bad rows are set apart.
    """

    name: str
    message: str
    spec: str | bytes = field(default_factory=spec)
    log: bytes | None = GOOD
    files: dict[str, bytes] = field(default_factory=dict)
    works: bool = False
    make: Callable[[Path], None] | None = None


def prepare(case: Case, folder: Path) -> Path:
    """Write the case's files; return the path of its spec."""
    if case.log is not None:
        (folder / "log.csv").write_bytes(case.log)
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    if case.make is not None:
        case.make(folder)
    path = folder / "SPEC.toml"
    path.write_bytes(case.spec if isinstance(case.spec, bytes) else case.spec.encode())
    return path


def outcome(case: Case, folder: Path) -> tuple[str, str]:
    """Return ("error", its text) or ("works", what was set apart and cleaned)."""
    path = prepare(case, folder)
    try:
        corpus = import_corpus(path, folder / "corpus")
    except IsthmusError as error:
        return "error", str(error).replace(f"{folder}/", "")
    rejects = pl.read_parquet(folder / "corpus" / "rejects.parquet")
    lines = [
        f"{source} line {line}: {reason}" for source, line, reason in rejects.select("source", "line", "reason").rows()
    ]
    return "works", "; ".join([*lines, f"{corpus.events.height} events", f"cleaning {corpus.manifest['cleaning']}"])


def rows(*lines: bytes) -> bytes:
    """Return the good log with further lines (numbers 62 and on)."""
    return GOOD + b"".join(line + b"\n" for line in lines)


def _sqlite(folder: Path) -> None:
    import sqlite3

    with sqlite3.connect(folder / "shop.db") as base:
        base.execute("create table log (user text, item text, rating real, ts integer)")
    base.close()


def _naive_parquet(folder: Path) -> None:
    frame = pl.read_csv(folder / "log.csv").with_columns(pl.from_epoch("ts", time_unit="s"))
    frame.write_parquet(folder / "log.parquet")


def _theirs(folder: Path) -> None:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "mine.txt").write_text("x")


def _folder(folder: Path) -> None:
    (folder / "logs").mkdir()


SQL = {"path": None, "format": '"sql"'}
ITEMS = '[[source]]\nkind = "items"\nplatform = "shop"\npath = "items.csv"\ncolumns = { item = "id", title = "title" }'
ISO = {"time": '{ format = "iso" }'}
JSONL = {"path": '"log.jsonl"'}

SPEC_CASES = [
    Case("spec is not TOML", "is not valid TOML", "name = \n"),
    Case("spec is empty", "missing key 'name'", ""),
    Case("spec is not UTF-8", "is not UTF-8 text", 'name = "caf\u00e9"'.encode("latin-1")),
    Case("no source", "missing key 'source'", 'name = "x"'),
    Case("empty list of sources", "at least one [[source]]", 'name = "x"\nsource = []'),
    Case("unknown key", "did you mean 'delimiter'?", spec(delimeter='";"')),
    Case("unknown column name", "did you mean 'user'?", spec(columns='{ usr = "user", item = "item" }')),
    Case("unknown cleaning rule", "did you mean 'near_seconds'?", spec('name = "x"\n[clean]\nnear_second = 1')),
    Case("wrong type of a number", "max_reject_share", spec('name = "x"\nmax_reject_share = "many"')),
    Case("share above one", "less than or equal to 1", spec('name = "x"\nmax_reject_share = 20')),
    Case("wrong type of a text", "valid string", spec(delimiter="5")),
    Case("unknown kind", "'events', 'items'", spec(kind='"event"')),
    Case("unknown format", "'csv', 'jsonl'", spec(format='"xlsx"')),
    Case("unknown event", "did you mean 'purchase'?", spec(event='"purchas"')),
    Case("no event", "events need event", spec(event=None)),
    Case("no platform", "needs platform", spec(platform=None)),
    Case("no path", "needs a path", spec(path=None)),
    Case("no column for the user", "needs columns.user", spec(columns='{ item = "item", ts = "ts" }')),
    Case(
        "column of another kind",
        "no meaning for kind events",
        spec(columns='{ user = "user", item = "item", title = "t" }'),
    ),
    Case("no time", 'or time = "order"', spec(columns='{ user = "user", item = "item" }', time=None)),
    Case("times of unknown form", "columns.ts needs time", spec(time=None)),
    Case("unknown time format", "did you mean 'unix_s'?", spec(time='"unixs"')),
    Case("pattern without a zone", "carry no time zone", spec(time='"%Y-%m-%d"')),
    Case("unknown time zone", "no such time zone 'Mars/Base'", spec(time='{ format = "iso", zone = "Mars/Base" }')),
    Case("falling scale", "must rise", spec(scale="[5, 1]")),
    Case("query without address", "needs url and query", spec(**SQL)),
    Case("variable not set", "ISTHMUS_NO_SUCH is not set", spec(path='"${ISTHMUS_NO_SUCH}/log.csv"')),
    Case("now without zone", "needs a time zone", spec('name = "x"\n[clean]\nnow = 2020-01-01T00:00:00')),
    Case(
        "key without secret",
        "needs a secret",
        spec(kind='"users"', event=None, time=None, columns='{ user = "user", key = "item" }'),
    ),
]

FILE_CASES = [
    Case("no such file", "no such file", log=None),
    Case("path is a folder", "is a folder", spec(path='"logs"'), make=_folder),
    Case("pattern matches nothing", "no file matches", spec(path='"none-*.csv"')),
    Case("empty file", "is empty", log=b""),
    Case(
        "column missing",
        "did you mean 'rating'?",
        spec(columns='{ user = "user", item = "item", value = "ratings", ts = "ts" }'),
    ),
    Case("wrong delimiter", "no column 'user'", spec(delimiter='";"')),
    Case("two columns of one name", "two columns are called 'user'", log=b"user,user,rating,ts\n1,2,3,4\n"),
    Case("unknown encoding", "unknown encoding 'utf-99'", spec(encoding='"utf-99"')),
    Case(
        "truncated gzip",
        "the archive is cut off",
        spec(path='"log.csv.gz"'),
        files={"log.csv.gz": gzip.compress(GOOD)[:-30]},
    ),
    Case(
        "damaged gzip",
        "cannot be read, or is damaged",
        spec(path='"log.csv.gz"'),
        files={"log.csv.gz": gzip.compress(GOOD)[:40] + b"\0" * 200 + gzip.compress(GOOD)[240:]},
    ),
    Case("not a Parquet file", "is not a readable Parquet file", spec(format='"parquet"')),
    Case("not JSON", "is not valid JSON", spec(format='"json"')),
    Case("lines that are not JSON", "× not a JSON object (log.csv line 1)", spec(format='"jsonl"')),
    Case(
        "ISO times without zone",
        "times carry no time zone",
        spec(**ISO),
        log=b"user,item,rating,ts\nu,i,3,2020-01-01 10:00:00\n",
    ),
    Case(
        "Parquet times without zone", "times carry no time zone", spec(path='"log.parquet"', **ISO), make=_naive_parquet
    ),
    Case(
        "milliseconds taken for seconds",
        "time in the future",
        log=GOOD.replace(b"\n", b"000\n").replace(b"ts000", b"ts"),
    ),
    Case("seconds taken for milliseconds", "time before 1990-01-01", spec(time='"unix_ms"')),
    Case("most rows bad", "raise max_reject_share", log=HEAD + b"nan,i,1,1400000000\n" * 40 + ROWS[:200]),
    Case(
        "map lacks the ids",
        "id not in the id map",
        spec(tail='[[source.item_maps]]\npath = "map.tsv"\nnames = ["a", "b"]\nkey = "a"\nvalue = "b"'),
        files={"map.tsv": b"x\ty\n"},
    ),
    Case(
        "map with double keys",
        "stands twice",
        spec(tail='[[source.item_maps]]\npath = "map.tsv"\nnames = ["a", "b"]\nkey = "a"\nvalue = "b"'),
        files={"map.tsv": b"x\ty\nx\tz\n"},
    ),
    Case("not a database address", "not a SQLAlchemy URL", spec(**SQL, url='"shop"', query='"select 1"')),
    Case(
        "unknown table in SQL",
        "no such table: absent",
        spec(**SQL, url='"sqlite://"', query='"select * from absent"'),
    ),
    Case("SQL syntax", "syntax error", spec(**SQL, url='"sqlite://"', query='"selekt 1"')),
    Case(
        "SQL driver missing", "No module named", spec(**SQL, url='"mysql+pymysql://u:secret@h/d"', query='"select 1"')
    ),
    Case(
        "out is somebody's folder",
        "was not written by isthmus",
        make=_theirs,
    ),
]

ROW_CASES = [
    Case("byte-order mark", "60 events", log=b"\xef\xbb\xbf" + GOOD, works=True),
    Case("Windows line ends", "60 events", log=GOOD.replace(b"\n", b"\r\n"), works=True),
    Case("no line end at the end", "60 events", log=GOOD[:-1], works=True),
    Case("header only", "0 events", log=HEAD, works=True),
    Case("blank lines", "'blank_rows': 2", log=rows(b"", b""), works=True),
    Case("UTF-16", "60 events", spec(encoding='"utf-16"'), log=GOOD.decode().encode("utf-16"), works=True),
    Case(
        "mixed encodings",
        "log.csv line 62: bytes that are not in the declared encoding",
        log=rows("书,本,3,1400000000".encode("gb18030")),
        works=True,
    ),
    Case(
        "NaN ids",
        "log.csv line 62: no user; log.csv line 63: no item",
        log=rows(b"NaN,i,3,1400000000", b"u,,3,1400000000"),
        works=True,
    ),
    Case("word for a rating", "log.csv line 62: value is not a number", log=rows(b"u,i,good,1400000000"), works=True),
    Case("infinite rating", "log.csv line 62: value is not a number", log=rows(b"u,i,inf,1400000000"), works=True),
    Case(
        "rating outside the scale",
        "log.csv line 62: value outside the scale",
        spec(scale="[1, 5]"),
        log=rows(b"u,i,11,1400000000"),
        works=True,
    ),
    Case("word for a time", "log.csv line 62: time not readable", log=rows(b"u,i,3,yesterday"), works=True),
    Case("no time in a row", "log.csv line 62: no time", log=rows(b"u,i,3,"), works=True),
    Case("time in the future", "log.csv line 62: time in the future", log=rows(b"u,i,3,9999999999"), works=True),
    Case(
        "time before the platform",
        "log.csv line 62: time before 2000-01-01",
        spec(since="2000-01-01"),
        log=rows(b"u,i,3,900000000"),
        works=True,
    ),
    Case(
        "too many fields",
        "log.csv line 62: too many fields; 60 events; cleaning {'text_less_items': 60}",
        log=rows(b"u,i,3,1400000000,x"),
        works=True,
    ),
    Case("too few fields", "log.csv line 62: no item", log=rows(b"u"), works=True),
    Case(
        "quote left open",
        "log.csv line 62: unclosed quote",
        log=rows(b'"u,i,3,1400000000', b"v,i,3,1400000000"),
        works=True,
    ),
    Case("quote inside a cell", "61 events", log=rows(b'u"x,i,3,1400000000'), works=True),
    Case(
        "10 MB cell",
        "log.csv line 62: id longer than 1000000 bytes",
        log=rows(b"u" * 10_000_000 + b",i,3,1400000000"),
        works=True,
    ),
    Case("NUL byte in an id", "61 events", log=rows(b"u\x00,i,3,1400000000"), works=True),
    Case("equal rows", "'duplicates': 1", log=rows(ROWS.splitlines()[0]), works=True),
    Case(
        "unknown event word",
        "line 62: unknown event",
        spec(
            columns='{ user = "user", item = "item", event = "rating", ts = "ts" }',
            event=None,
            events='{ 1 = "view", 2 = "view", 3 = "click", 4 = "cart", 5 = "purchase" }',
        ),
        log=rows(b"u,i,6,1400000000"),
        works=True,
    ),
    Case(
        "duplicate item keys",
        "'merged_items': 1",
        spec(tail=ITEMS),
        files={"items.csv": b"id,title\ni1,Tea\ni1,Tee\n"},
        works=True,
    ),
    Case(
        "item without id",
        "items.csv line 2: no item",
        spec(tail=ITEMS),
        files={"items.csv": b"id,title\n,Tea\ni1,Tee\n"},
        works=True,
    ),
    Case(
        "one bad JSON line",
        "log.jsonl line 2: not a JSON object",
        spec(**JSONL),
        files={
            "log.jsonl": b'{"user":"u","item":"i","rating":3,"ts":1400000000}\n{bad\n'
            + b'{"user":"u","item":"j","rating":3,"ts":1400000009}\n' * 8
        },
        works=True,
    ),
    Case(
        "clock time that was skipped",
        "line 3: time not readable",
        spec(time='{ format = "iso", zone = "Europe/Berlin" }'),
        log=HEAD
        + b"u,i,3,2021-03-27 02:30:00\nu,i,3,2021-03-28 02:30:00\n"
        + b"".join(b"u,i,3,2021-04-%02d 02:30:00\n" % n for n in range(1, 9)),
        works=True,
    ),
    Case(
        "empty SQL result",
        "0 events",
        spec(**SQL, url='"sqlite:///${ISTHMUS_CASE}/shop.db"', query='"select * from log"'),
        make=_sqlite,
        works=True,
    ),
]

CASES = [*SPEC_CASES, *FILE_CASES, *ROW_CASES]
