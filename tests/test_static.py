"""Text students: a table of token vectors, and a model with fewer layers; both read wherever a model is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from tests.tiny_reader import TEXTS, reader

from isthmus.encode.base import unit
from isthmus.encode.static import HASHED, StaticEncoder, Tokens, is_static, open_encoder, read_tokenizer
from isthmus.encode.store import encode_items
from isthmus.encode.text import TextEncoder
from isthmus.errors import ArtefactError, InputError, NotFoundError
from isthmus.recommender.distilled import reads_with
from isthmus.testing import check_encoder
from isthmus.transfer.distil_layers import LayerSettings, distil_layers
from isthmus.transfer.distil_static import StaticSettings, distil_static, principal, ridge_towards

ITEMS = pl.DataFrame({"platform": "shop", "item": ["1", "2", "3"], "title": ["Green tea", "绿茶 tea", "a red saw"]})
SMALL = StaticSettings(dim=12)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("static") / "reader"
    return folder, distil_static(TEXTS, folder, model=reader(), settings=SMALL)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(read_tokenizer(Path(reader()) / "tokenizer.json"))


def test_it_keeps_the_contract_of_encoders(static: tuple[Path, dict[str, object]]) -> None:
    encoder = StaticEncoder(static[0])
    check_encoder(encoder, ITEMS)
    rows = encoder.encode(ITEMS)
    assert rows.shape == (3, 12)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.fingerprint == StaticEncoder(f"static:{static[0]}").fingerprint
    assert np.allclose(encode_items(ITEMS, encoder).matrix, rows, atol=1e-3), "through the cache of vectors"


def test_the_fit_brings_it_nearer_to_its_teacher(static: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    said = static[1]
    before, after = float(str(said["cosine_before"])), float(str(said["cosine"]))
    assert 0.0 < before < after < 1.0
    assert (said["texts"], said["dim"]) == (len(TEXTS), 12)
    plain = distil_static(TEXTS, tmp_path / "plain", model=reader(), settings=StaticSettings(dim=12, tune=False))
    assert plain["cosine"] is None
    teacher = TextEncoder(reader()).encode_texts(TEXTS)
    alike = unit(teacher - teacher.mean(axis=0)) @ unit(teacher - teacher.mean(axis=0)).T
    fits = []
    for folder in (tmp_path / "plain", static[0]):
        rows = StaticEncoder(folder).encode_texts(TEXTS)
        fits.append(np.corrcoef((rows @ rows.T).ravel(), alike.ravel())[0, 1])
    assert fits[0] < fits[1]
    assert fits[1] > 0.6


def test_a_script_that_the_tokeniser_lacks_is_read_by_its_characters(static: tuple[Path, dict[str, object]]) -> None:
    rows = StaticEncoder(static[0]).encode_texts(["机器学习", "深度学习", "红烧牛肉", "学习", "🍵"])
    assert rows[0] @ rows[1] > 0.1 + rows[0] @ rows[2]
    assert rows[0] @ rows[3] > 0.5
    assert np.abs(rows).sum(axis=1).all()


def test_counts_are_those_of_a_plain_loop(tokens: Tokens) -> None:
    texts = ["green teas, green", "", "绿茶茶 tea", "saw"]
    counts = tokens.count(texts).toarray()
    vocabulary = tokens.tokenizer.get_vocab()
    assert counts[0, vocabulary["green"]] == 2
    assert counts[0, vocabulary["##s"]] == 1
    assert counts[1].sum() == 0
    assert counts[2, vocabulary["茶"]] == 2
    assert counts[2, -HASHED:].sum() == 1, "绿 is not known, and its neighbour is"
    assert counts[:, vocabulary["[UNK]"]].sum() == 0
    assert tokens.count([]).shape == (0, tokens.size)


def test_ridge_is_that_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    begin, taught = rng.normal(size=(9, 3)).astype(np.float32), rng.normal(size=(30, 3)).astype(np.float32)
    rows = (rng.random((30, 9)) < 0.4) * rng.random((30, 9))
    closed = np.linalg.solve(rows.T @ rows + 0.5 * np.eye(9), rows.T @ taught + 0.5 * begin)
    found = ridge_towards(begin, sparse.csr_array(rows.astype(np.float32)), taught, 0.5)
    assert np.allclose(found, closed, atol=1e-3)


def test_principal_directions_keep_lengths() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    rows[4] = 0
    cut = principal(rows, 6).transform(rows)
    used = np.delete(rows, 4, axis=0)
    expected = np.linalg.norm(used - used.mean(axis=0), axis=1)
    assert np.allclose(np.linalg.norm(np.delete(cut, 4, axis=0), axis=1), expected, atol=1e-4)
    assert not cut[4].any()
    spread = np.delete(cut, 4, axis=0).var(axis=0)
    assert (np.diff(spread) <= 1e-6).all()


def test_fewer_texts_than_are_worth_it_only_give_the_table(tmp_path: Path) -> None:
    said = distil_static(["green tea", "", "green tea"], tmp_path / "few", model=reader(), settings=SMALL)
    assert (said["texts"], said["cosine"]) == (1, None)
    assert StaticEncoder(tmp_path / "few").encode_texts(["green saw"]).any()


def test_it_is_opened_by_its_name(static: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    assert isinstance(open_encoder(str(static[0])), StaticEncoder)
    assert isinstance(open_encoder(reader()), TextEncoder)
    assert not is_static(None)
    with pytest.raises(NotFoundError, match="no such model folder"):
        open_encoder(str(tmp_path / "none"))
    with pytest.raises(ArtefactError, match="is not a static encoder"):
        open_encoder(f"static:{tmp_path}")
    with pytest.raises(InputError, match="static encoder already"):
        reads_with(str(static[0]))


def test_damage_is_named(static: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(static[0], tmp_path / name))

    changed = broken("changed")
    (changed / "static.safetensors").write_bytes(b"half")
    missing = broken("missing")
    (missing / "tokenizer.json").unlink()
    future = broken("future")
    card = json.loads((future / "isthmus.json").read_text())
    (future / "isthmus.json").write_text(json.dumps({**card, "format": 9}))
    torn = broken("torn")
    (torn / "isthmus.json").write_text('{"encoder": "static", "format": 1}')
    other = broken("other")
    (other / "isthmus.json").write_text('{"encoder": "layers"}')
    said = ("was changed", "tokenizer.json is missing", "format 9", "isthmus.json is damaged", "not a static")
    for folder, words in zip((changed, missing, future, torn, other), said, strict=True):
        with pytest.raises(ArtefactError, match=words):
            StaticEncoder(folder)
    with pytest.raises(InputError, match="above 0"):
        StaticSettings(dim=0)


def test_a_model_with_fewer_layers_learns_to_read_as_the_whole(tmp_path: Path) -> None:
    how = LayerSettings(layers=2, epochs=5, learning_rate=1e-2)
    said = distil_layers(TEXTS, tmp_path / "half", model=reader(), settings=how)
    assert (said["layers"], said["of"]) == (2, 4)
    assert float(str(said["cosine_before"])) + 0.02 < float(str(said["cosine"])) <= 1.0
    encoder, teacher = open_encoder(str(tmp_path / "half")), open_encoder(reader())
    check_encoder(encoder, ITEMS)
    mine, theirs = encoder.encode(ITEMS), teacher.encode(ITEMS)
    assert np.einsum("nd,nd->n", mine, theirs).mean() > 0.6
    assert sum(path.stat().st_size for path in (tmp_path / "half").rglob("*.safetensors")) > 0
    with pytest.raises(InputError, match="5 layers of a model that has 4"):
        distil_layers(TEXTS, tmp_path / "five", model=reader(), settings=LayerSettings(layers=5))
    with pytest.raises(InputError, match="fewer than two texts"):
        distil_layers(["tea"], tmp_path / "one", model=reader())
    assert not (tmp_path / "five").exists()


def test_all_layers_and_no_lesson_are_the_teacher(tmp_path: Path) -> None:
    said = distil_layers(TEXTS, tmp_path / "all", model=reader(), settings=LayerSettings(layers=4, epochs=0))
    assert float(str(said["cosine"])) == pytest.approx(1.0, abs=1e-4)
    last = distil_layers(TEXTS, tmp_path / "last", model=reader(), settings=LayerSettings(layers=1, epochs=0))
    assert last["layers"] == 1
    assert float(str(last["cosine"])) < 0.999
