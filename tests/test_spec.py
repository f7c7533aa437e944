"""The spec: what is read, what is guessed from file names, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import text_of

from isthmus.config import expand, parse
from isthmus.data.spec import Source, Spec, read_spec
from isthmus.errors import SpecError

BASE = {
    "kind": "events",
    "platform": "p",
    "path": "r.csv",
    "event": "rate",
    "columns": {"user": "u", "item": "i", "ts": "t"},
    "time": "unix_s",
}


def source(**keys: object) -> Source:
    content = {"name": "x", "source": [{**BASE, **keys}]}
    return parse(Spec, content, where="SPEC.toml").source[0]


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "SPEC.toml"
    path.write_text(
        'name = "商店"\n[[source]]\nkind = "events"\nplatform = "书店"\npath = "a.csv"\nevent = "view"\n'
        'columns = { user = "用户", item = ["甲", "乙"], ts = "t" }\n'
        'time = { format = "iso", zone = "Asia/Shanghai" }\n'
    )
    spec = read_spec(path)
    assert spec.name == "商店"
    assert spec.source[0].mapping == {"user": ("用户",), "item": ("甲", "乙"), "ts": ("t",)}
    assert spec.max_reject_share == 0.2
    assert spec.clean.duplicates


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("a.csv", "csv"),
        ("a.tsv.gz", "csv"),
        ("a.JSONL", "jsonl"),
        ("a.json.gz", "json"),
        ("a.parquet", "parquet"),
        ("a.dat", "csv"),
    ],
)
def test_the_format_is_told_by_the_ending(path: str, shape: str) -> None:
    assert source(path=path).shape == shape


def test_a_file_with_given_names_has_no_header() -> None:
    assert source().has_header
    assert not source(names=["u", "i", "t"]).has_header
    assert source(names=["u", "i", "t"], header=True).has_header


def test_rating_files_need_no_columns() -> None:
    rating = source(format="rating", columns={}, event=None)
    assert rating.mapping == {name: (name,) for name in ("user", "item", "value", "ts")}
    assert not rating.has_header


def test_sequences_have_an_order_unless_entries_have_times() -> None:
    plain = source(format="sequence", columns={}, time=None)
    assert plain.order_only
    timed = source(format="sequence", columns={}, sequence={"entry": {"delimiter": "|", "fields": ["item", "ts"]}})
    assert not timed.order_only
    assert timed.mapping["ts"] == ("ts",)


def test_edgelists_take_the_relation_from_the_file() -> None:
    edges = source(kind="edges", format="edgelist", columns={}, event=None, time=None, platform=None)
    assert edges.mapping["relation"] == ("@file",)
    named = source(kind="edges", format="edgelist", columns={}, event=None, time=None, relation="made by")
    assert "relation" not in named.mapping


def test_item_maps_can_give_the_platform() -> None:
    table = {"path": "m.tsv", "key": "a", "value": "b"}
    assert source(platform=None, item_maps=[{**table, "platform": "q"}]).platform is None
    with pytest.raises(SpecError, match="needs platform"):
        source(platform=None, item_maps=[table])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"event": "buy"}, "no event 'buy'"),
        ({"events": {"x": "purchas"}}, "did you mean 'purchase'"),
        ({"time": "unix"}, "did you mean 'unix_s'"),
        ({"time": {"format": "%H"}}, "carry no time zone"),
        ({"kind": "items"}, "no meaning for kind items"),
        ({"format": "sequence", "kind": "items"}, "holds events"),
        ({"kind": "identities", "columns": {"user": "u"}}, "columns.person, columns.key"),
        ({"kind": "edges", "columns": {"head": "a", "tail": "b"}}, "needs relation"),
        ({"sequence": {"entry": {"delimiter": "|", "fields": ["ts"]}}}, "must name 'item'"),
        ({"item_maps": [{"path": "m", "key": "a", "valeu": "b"}]}, "did you mean 'value'"),
    ],
)
def test_refuses_and_says_why(keys: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        source(**keys)


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_TEST_PLACE", "/logs")
    assert expand("${ISTHMUS_TEST_PLACE}/a.csv", where="s") == "/logs/a.csv"
    assert expand("${ISTHMUS_TEST_NONE:-}/a.csv", where="s") == "/a.csv"
    with pytest.raises(SpecError, match="ISTHMUS_TEST_NONE is not set"):
        expand("${ISTHMUS_TEST_NONE}", where="s")


def test_every_key_is_in_the_reference() -> None:
    text = text_of("spec.md")
    models = [Spec, *(field.annotation for field in Spec.model_fields.values()), Source]
    keys = [key for model in models if hasattr(model, "model_fields") for key in model.model_fields]
    assert len(keys) > 50
    assert [key for key in keys if f"`{key}`" not in text and f"[{key}]" not in text and f"{key} =" not in text] == []
