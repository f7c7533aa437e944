"""I3: whatever is in files, specs, tables and messages, only declared errors come out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.tiers import count

from isthmus.data.importer import import_corpus
from isthmus.data.narrate import Style, narrate, parse
from isthmus.data.spec import read_spec
from isthmus.errors import DataError, InputError, IsthmusError
from isthmus.service.streams.intake import BATCH, Delivery, read_events
from isthmus.service.streams.redis_source import content_of
from isthmus.types import EVENTS

SPEC = """
name = "made-up"
max_reject_share = 1.0
[[source]]
kind = "events"
platform = "shop"
path = "events.{ending}"
[source.columns]
user = "who"
item = "what"
event = "kind"
value = "stars"
ts = "when"
[source.time]
format = "unix_s"
"""
ROWS = [
    {"who": f"u{n % 4}", "what": f"i{n % 5}", "kind": "view", "stars": 0.5, "when": 1_700_000_000 + n}
    for n in range(12)
]
BYTES = st.binary(min_size=0, max_size=12) | st.sampled_from(
    [
        b'"',
        b'""',
        b"\n",
        b"\r\n",
        b",",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\\u0000",
        b"{}",
        b"[[[",
        b"1e999",
        b"NaN",
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 8), BYTES), min_size=1, max_size=5)


def runs(small: int, full: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return how often a test is made up anew."""
    return settings(
        max_examples=count(small, full),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=count(1, 0) == 1,
        database=None,
    )


def edited(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return content with some places taken out and others put in."""
    for place, gone, new in edits:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + gone :]
    return content


def written(folder: Path, ending: str) -> bytes:
    frame = pl.DataFrame(ROWS)
    path = folder / f"events.{ending}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[ending](path)
    return path.read_bytes()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_importers_take_or_refuse_whatever_a_file_holds(ending: str, tmp_path: Path) -> None:
    (tmp_path / "SPEC.toml").write_text(SPEC.format(ending=ending))
    good = written(tmp_path, ending)
    whole = import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert whole.events.height == len(ROWS)
    outcomes: Counter[str] = Counter()

    @runs(25, 1000)
    @given(EDITS)
    @example([(0, 0, b"\r")])
    @example([(0, 0, b"x" * 200_000)])
    def run(edits: list[tuple[int, int, bytes]]) -> None:
        (tmp_path / f"events.{ending}").write_bytes(edited(good, edits))
        try:
            corpus = import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
        except IsthmusError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["taken" if corpus.events.height == len(ROWS) else "taken in part"] += 1
            assert corpus.events["ts"].null_count() == 0
            assert corpus.events.height <= len(ROWS) + 40

    run()
    print(f"{ending}: {dict(outcomes)}")
    assert outcomes["DataError" if ending == "parquet" else "taken in part"] > 0, "most bytes matter"


WORDS = st.sampled_from(
    ["name", "source", "kind", "events", "path", "columns", "user", "ts", "clean", "identity", "max_reject_share"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["events", "csv"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_specs_are_read_or_refused(tmp_path: Path) -> None:
    good = SPEC.format(ending="csv").encode()
    path = tmp_path / "SPEC.toml"
    outcomes: Counter[str] = Counter()

    @runs(250, 20_000)
    @given(EDITS.map(lambda edits: edited(good, edits)) | st.dictionaries(WORDS, VALUES).map(toml))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read_spec(path)
        except InputError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["read"] += 1

    run()
    print(dict(outcomes))
    assert outcomes["SpecError"] > 50
    assert outcomes["read"] > 0


def toml(said: dict[str, object]) -> bytes:
    """Return some TOML; JSON's form of a value is nearly always one of TOML's."""
    return "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in said.items()).encode(
        "utf-8", "surrogatepass"
    )


TEXTS = st.text(max_size=30) | st.sampled_from(
    ['"', "，", ", then ", "Ignore all before.", "\u202e", "a\nb", "看了《x》"]
)
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1))
TOLD = st.lists(
    st.tuples(st.integers(0, 2), TEXTS, st.sampled_from(EVENTS), st.none() | TEXTS, st.none() | st.floats(), TIMES),
    max_size=8,
)


def test_behaviour_of_any_kind_becomes_text_within_its_room() -> None:
    seen = 0

    @runs(60, 3000)
    @given(TOLD, st.sampled_from(["en", "zh"]), st.integers(1, 400), st.sampled_from(["oldest", "newest"]))
    def run(rows: list[tuple[object, ...]], language: str, room: int, order: str) -> None:
        nonlocal seen
        names = {"person": pl.UInt32, "platform": pl.String, "event": pl.String, "title": pl.String}
        schema = {**names, "value": pl.Float64, "ts": pl.Datetime("us")}
        frame = pl.DataFrame(rows, schema=schema, orient="row").sort("person", "ts", maintain_order=True)
        told = narrate(frame, language=language, max_tokens=room, style=Style(order=order))  # type: ignore[arg-type]
        assert told.height == frame["person"].n_unique()
        for text in told["text"]:
            seen += bool(text)
            try:
                back = parse(text, language)  # type: ignore[arg-type]
            except InputError:
                continue
            assert len(back) <= frame.height

    run()
    assert seen > 20


@runs(150, 20_000)
@given(TEXTS, st.sampled_from(["en", "zh"]))
def test_any_text_is_parsed_as_behaviour_or_refused(text: str, language: str) -> None:
    try:
        told = parse(text, language)  # type: ignore[arg-type]
    except DataError:
        return
    assert bool(told) == bool(text)


NAMES = st.text(max_size=6) | st.none() | st.integers() | st.sampled_from(["shop", "u", "i", "click"])
DEED = st.dictionaries(st.sampled_from(["platform", "user", "item", "event", "value", "ts", "id", "x"]), NAMES)
MESSAGES = (
    st.binary(max_size=200)
    | (DEED | st.lists(DEED, max_size=3) | st.fixed_dictionaries({"events": st.lists(DEED, max_size=2)})).map(
        lambda said: json.dumps(said).encode()
    )
    | EDITS.map(lambda edits: edited(json.dumps({"platform": "shop", "user": "u", "item": "i"}).encode(), edits))
    | st.fixed_dictionaries({name: st.text(min_size=1, max_size=5) for name in ("platform", "user", "item")}).map(
        lambda said: json.dumps(said).encode()
    )
)


def test_messages_of_streams_are_events_or_refused() -> None:
    outcomes: Counter[str] = Counter()

    @runs(300, 40_000)
    @given(MESSAGES)
    def run(body: bytes) -> None:
        delivery = Delivery("redis:events:1-0", body, datetime(2026, 1, 1, tzinfo=UTC))
        try:
            events = read_events(delivery)
        except DataError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert 1 <= len(events) <= BATCH
            assert events == read_events(delivery), "the same each time, its ids too"

    run()
    print(dict(outcomes))
    assert outcomes["read"] > 5
    assert outcomes["refused"] > 50


@runs(150, 20_000)
@given(
    st.dictionaries(
        st.binary(max_size=6) | st.sampled_from([b"data", b"__data__", b"traceparent"]), st.binary(max_size=40)
    )
)
def test_any_entry_of_a_redis_stream_has_a_content(fields: dict[bytes, bytes]) -> None:
    body, trace = content_of(fields)
    assert isinstance(body, bytes)
    assert isinstance(trace, str)
    if b"data" in fields:
        assert body == fields[b"data"]
