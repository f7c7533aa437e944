"""The language carrier on disk and as an encoder: there and back, damage told, fingerprints that follow the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra 'text' is not installed")

import torch
from tests.tiny_language import ITEMS, TEXTS, padded, some_tokens, tiny

from isthmus.data.sequences import Histories
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder, TextSettings
from isthmus.encode.weights import locate
from isthmus.errors import ArtefactError, InputError
from isthmus.model.language import LanguageModel
from isthmus.model.language_encoder import LanguageEncoder, person_vectors, read
from isthmus.model.reading import Reader, tokenise
from isthmus.testing import check_encoder


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_what_is_saved_comes_back_exactly(kind: str, tmp_path: Path) -> None:
    model = tiny(kind, labels={"domain": ["food", "books"]}, about={"data": ["abc123"], "base": "thin air"})
    model.config.max_tokens_item = 33
    model.save_pretrained(tmp_path / "model")
    again = LanguageModel.from_pretrained(tmp_path / "model")
    assert not again.training
    for (name, weight), (other, same) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert weight.equal(same)
    with torch.no_grad():
        assert model.embed(*padded("right")).equal(again.embed(*padded("right")))
    assert again.config.labels == {"domain": ["food", "books"]}
    assert (again.config.pooling, again.config.max_tokens_item) == (model.config.pooling, 33)
    assert again.tokenizer(TEXTS)["input_ids"] == model.tokenizer(TEXTS)["input_ids"]
    kinds = {path.suffix for path in (tmp_path / "model").iterdir()}
    assert kinds <= {".json", ".safetensors", ".md", ".txt", ".jinja"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "abc123" in card
    assert "from thin air" in card
    assert "licence: unknown" in card
    assert model.config.objectives[0] in card


def damage(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if how == "other format":
        config["format"] = 99
    if how == "other type":
        config["model_type"] = "bert"
    if how == "more classes":
        config["labels"] = {"kind": ["a"]}
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    if how == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    if how == "no weights":
        weights.unlink()
    if how == "no config":
        (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("other format", "has format 99, this version reads 1"),
        ("other type", "holds a model of type bert"),
        ("more classes", "weights do not fit its configuration"),
        ("half the weights", "is damaged"),
        ("no weights", "holds no weights"),
        ("no config", "is not a language model"),
    ],
)
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, how: str, said: str) -> None:
    tiny("bert").save_pretrained(tmp_path / "model")
    damage(tmp_path / "model", how)
    with pytest.raises(ArtefactError, match=said):
        LanguageModel.from_pretrained(tmp_path / "model")


def test_a_plain_folder_is_a_base_and_pools_as_its_kind(tmp_path: Path) -> None:
    source = tiny("gpt2")
    source.backbone.save_pretrained(tmp_path / "gpt")
    with pytest.raises(ArtefactError, match="holds no tokeniser"):
        LanguageModel.from_encoder(str(tmp_path / "gpt"))
    source.tokenizer.save_pretrained(tmp_path / "gpt")
    model = LanguageModel.from_encoder(str(tmp_path / "gpt"))
    assert (model.config.pooling, model.config.max_tokens_person) == ("last", 128)
    with torch.no_grad():
        assert model.embed(*padded("right")).equal(source.embed(*padded("right")))
    assert LanguageModel.from_encoder(str(tmp_path / "gpt"), pooling="mean").config.pooling == "mean"


def test_a_base_with_parts_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(locate(None), tmp_path / "model")
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ArtefactError, match="cannot be trained here: Dense"):
        LanguageModel.from_encoder(str(folder))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bundled_model_reads_as_the_text_encoder_does(precision: str) -> None:
    encoder = LanguageEncoder(LanguageModel.from_encoder(), precision=precision)
    check_encoder(encoder, ITEMS)
    other = TextEncoder(settings=TextSettings(precision=precision, device="cpu"))
    np.testing.assert_allclose(
        encoder.encode(ITEMS), other.encode(ITEMS), atol=1e-6 if precision == "float32" else 0.02
    )


def test_the_fingerprint_follows_the_weights_and_the_store_keeps_the_vectors(tmp_path: Path) -> None:
    model = tiny("bert")
    first = LanguageEncoder(model, precision="float32")
    vectors = encode_items(ITEMS, first)
    np.testing.assert_allclose(vectors.matrix, first.encode(ITEMS), atol=1e-6)
    model.save_pretrained(tmp_path / "model")
    again = LanguageModel.from_pretrained(tmp_path / "model")
    assert LanguageEncoder(again, precision="float32").fingerprint == first.fingerprint
    assert LanguageEncoder(again, precision="bfloat16").fingerprint != first.fingerprint
    titles = LanguageEncoder(again, precision="float32", template=Template(parts=("title",)))
    assert titles.fingerprint != first.fingerprint
    assert titles.model_fingerprint == first.model_fingerprint
    with torch.no_grad():
        next(again.layers()[0].parameters()).add_(1e-3)
    assert LanguageEncoder(again, precision="float32").fingerprint != first.fingerprint
    model.tokenizer = None
    with pytest.raises(InputError, match="no tokeniser"):
        LanguageEncoder(model)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_reading_leaves_a_model_in_training_as_it_was(precision: str) -> None:
    model = tiny("bert").train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    rows = np.concatenate([vectors for _, vectors in read(model, some_tokens(), precision)])
    assert rows.shape == (len(TEXTS), 16)
    assert model.training
    assert model.backbone.config._attn_implementation == "eager"
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_people_are_read_as_what_they_did() -> None:
    model = tiny("bert")
    reader = Reader(model.tokenizer, ITEMS)
    histories = Histories.of([[0, 1], [], [2], [1, 2, 0]])
    rows = person_vectors(model, reader, histories, precision="float32")
    text = 'viewed "Green tea" on shop, then viewed "A diver\'s year" on books.'
    ids, mask = (torch.from_numpy(array) for array in tokenise(model.tokenizer, [text], 256).padded())
    with torch.no_grad():
        np.testing.assert_allclose(rows[0], model.embed(ids, mask)[0].numpy(), atol=1e-5)
    assert not rows[1].any()
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 2, 3]], axis=1), 1, atol=1e-5)
    assert person_vectors(model, reader, Histories.of([])).shape == (0, 16)
