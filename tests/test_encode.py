"""Item vectors, whitening and the item template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.config import parse
from isthmus.encode.base import ItemVectors, unit
from isthmus.encode.template import Template
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, DataError, SpecError


def items(*names: str) -> pl.DataFrame:
    schema = {"platform": pl.String, "item": pl.String}
    return pl.DataFrame({"platform": ["shop"] * len(names), "item": list(names)}, schema=schema)


def vectors(n: int = 4, dim: int = 3) -> ItemVectors:
    rows = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return ItemVectors.of(items(*(f"i{k}" for k in range(n))), rows, encoder="e1", corpus="c1")


def test_vectors_survive_a_round_trip_through_a_folder(tmp_path: Path) -> None:
    saved = vectors()
    opened = saved.save(tmp_path / "vectors")
    assert opened.keys.equals(saved.keys)
    assert opened.matrix.dtype == np.float32
    np.testing.assert_array_equal(opened.matrix, saved.matrix)
    assert (opened.encoder, opened.corpus, opened.dim, len(opened)) == ("e1", "c1", 3, 4)


def test_align_follows_the_asked_order_and_gives_zeros_for_unknown_items() -> None:
    base = vectors()
    aligned = base.align(items("i2", "new", "i0"))
    np.testing.assert_array_equal(aligned, np.stack([base.matrix[2], np.zeros(3, np.float32), base.matrix[0]]))
    other = pl.DataFrame({"platform": ["cinema"], "item": ["i0"]})
    assert not base.align(other).any()
    assert base.align(items()).shape == (0, 3)


def test_known_marks_items_that_have_a_vector() -> None:
    matrix = np.array([[1, 0], [0, 0]], dtype=np.float32)
    assert ItemVectors.of(items("a", "b"), matrix, encoder="e").known.tolist() == [True, False]


@pytest.mark.parametrize(
    ("names", "matrix", "message"),
    [
        (("a", "b"), np.zeros((1, 2)), "2 items but vectors of shape"),
        (("a",), np.zeros(1), "vectors of shape"),
        (("a",), np.array([[np.nan]]), "not finite"),
        (("a", "a"), np.zeros((2, 1)), "comes twice"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(names: tuple[str, ...], matrix: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ItemVectors.of(items(*names), matrix, encoder="e")


def _truncate(folder: Path) -> None:
    path = folder / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _other_format(folder: Path) -> None:
    path = folder / "vectors.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def _other_count(folder: Path) -> None:
    path = folder / "vectors.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "items": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "vectors.json").unlink(), "is not a vectors"),
        (lambda folder: (folder / "vectors.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "items.parquet").unlink(), "damaged"),
        (lambda folder: (folder / "items.parquet").write_bytes(b"PAR1"), "damaged"),
        (_truncate, "damaged"),
        (_other_format, "format 99"),
        (_other_count, "do not fit their manifest"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    vectors().save(tmp_path / "vectors")
    damage(tmp_path / "vectors")
    with pytest.raises(ArtefactError, match=message):
        ItemVectors.open(tmp_path / "vectors")


def test_whitening_gives_the_known_answer() -> None:
    rows = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]], dtype=np.float32) + 7
    # covariance diag(6, 2/3), mean 7: ZCA divides the axes by their standard deviations and turns nothing
    expected = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]) / np.sqrt([6, 2 / 3])
    np.testing.assert_allclose(Whitening.fit(rows).transform(rows), expected, atol=1e-5)
    # half shrunk: the variances become (6 + 10/3) / 2 and (2/3 + 10/3) / 2
    expected = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]) / np.sqrt([14 / 3, 2])
    np.testing.assert_allclose(Whitening.fit(rows, shrink=0.5).transform(rows), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(1, 6))
def test_whitened_rows_have_unit_covariance_and_zca_stays_symmetric(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(200, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)).astype(np.float32)
    if np.linalg.cond(np.cov(rows.T).reshape(dim, dim)) > 1e4:
        return
    zca = Whitening.fit(rows)
    np.testing.assert_allclose(np.cov(zca.transform(rows).T).reshape(dim, dim), np.eye(dim), atol=2e-2)
    np.testing.assert_allclose(zca.directions, zca.directions.T, atol=1e-4 * np.abs(zca.directions).max())
    pca = Whitening.fit(rows, kind="pca", dim=1)
    assert pca.transform(rows).shape == (200, 1)


def test_directions_without_variance_and_missing_rows_do_no_harm() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows[:, 2] = 5.0
    rows[0] = 0.0
    white = Whitening.fit(rows).transform(rows)
    assert np.isfinite(white).all()
    assert not white[0].any()
    assert np.abs(white[1:].mean(axis=0)).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shrink": 2.0}, "shrink"), ({"dim": 1}, "kind='pca'"), ({"dim": 9, "kind": "pca"}, "dim must lie")],
)
def test_whitening_refuses_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Whitening.fit(np.eye(3, dtype=np.float32), **options)
    with pytest.raises(DataError, match="at least 2 vectors"):
        Whitening.fit(np.zeros((5, 3), dtype=np.float32))


def test_item_vectors_whiten_on_chosen_rows_only() -> None:
    base = vectors(60, 4)
    half = np.arange(60) < 30
    white = base.whiten(half)
    expected = unit(Whitening.fit(base.matrix[half]).transform(base.matrix))
    np.testing.assert_allclose(white.matrix, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(white.matrix, axis=1), 1, atol=1e-5)
    assert white.encoder != base.whiten().encoder != base.encoder
    assert base.whiten(dim=2).dim == 2


def table(**columns: object) -> pl.DataFrame:
    return pl.DataFrame(columns)


def test_template_joins_parts_in_order_and_lets_missing_ones_vanish() -> None:
    frame = pl.DataFrame(
        {
            "title": ["三体", None, " Tea. ", None],
            "categories": [["科幻", "小说"], ["Food", None, ""], [], None],
            "text": ["地球往事", "", None, "   "],
            "attributes": ['{"brand": "重庆出版社"}', '{"brand": null, "colour": "red"}', None, "{}"],
        }
    )
    template = Template(labels={"brand": "by "})
    assert template.render(frame).to_list() == ["三体. 科幻, 小说. by 重庆出版社. 地球往事", "Food", "Tea", ""]


def test_template_takes_columns_and_attributes_by_name() -> None:
    frame = table(
        title=["A"],
        domain=["books"],
        text=["long"],
        attributes=['{"year": 1999, "tags": ["x", "y z"], "odd\'key": "q"}'],
    )
    render = lambda *parts, **more: Template(parts=parts, **more).render(frame).to_list()  # noqa: E731
    assert render("title", "year", "tags", separator=" | ") == ["A | 1999 | x, y z"]
    assert render("domain", "description", "absent") == ["books. long"]
    assert render("odd'key") == ["q"]
    assert render("title", "text", max_chars=3, prefix="passage: ") == ["passage: A. "]
    assert render("absent", prefix="passage: ") == [""]


def test_template_works_without_optional_columns_and_rows() -> None:
    assert Template().render(table(title=["A"])).to_list() == ["A"]
    assert Template().render(pl.DataFrame(schema={"title": pl.String})).to_list() == []


def test_attributes_that_are_no_json_vanish() -> None:
    frame = table(title=["A", "B"], attributes=["{broken", '["a list"]'])
    assert Template(parts=("title", "brand")).render(frame).to_list() == ["A", "B"]


def test_template_configuration_names_an_unknown_key() -> None:
    with pytest.raises(SpecError, match="did you mean 'parts'"):
        parse(Template, {"part": ["title"]}, where="spec.toml")
