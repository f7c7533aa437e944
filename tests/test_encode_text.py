"""The text encoder against references, and the refusal of damaged or unsafe model folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.pages import run_programs

from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder, TextSettings, batches, one_core_each
from isthmus.encode.weights import folder_fingerprint, is_causal, locate
from isthmus.errors import ArtefactError, NotFoundError

pytest.importorskip("sentence_transformers", reason="the extra 'text' is not installed")

TEXTS = [
    "green tea",
    "Japanese Kit Kat Maccha Green Tea Flavor (5 Bag) (4.91oz x 5)",
    "三体：地球往事三部曲之一",
    "深度学习入门 — a first course in deep learning, with exercises",
    "x",
    "A film about two people who meet on a train to Vienna and decide to spend the night walking. " * 4,
    "♫ ☕️ emoji 🎧",
]
FLOAT32 = TextSettings(precision="float32", device="cpu")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models with the bundled tokeniser: a BERT and a GPT-2, each a plain Hugging Face folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(str(locate(None)))
    size = {"vocab_size": tokenizer.vocab_size}
    bert = BertConfig(
        **size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(bert).save_pretrained(folder / "bert")
    GPT2LMHeadModel(GPT2Config(**size, n_embd=16, n_layer=2, n_head=2, n_positions=64)).save_pretrained(folder / "gpt2")
    for name in ("bert", "gpt2"):
        tokenizer.save_pretrained(folder / name)
    return {"bert": folder / "bert", "gpt2": folder / "gpt2"}


def naive(folder: Path, texts: list[str], pooling: str) -> np.ndarray:
    """One text at a time, no padding, no batching: what the encoder must give."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder)).eval()
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0]
        row = {"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling]
        rows.append(torch.nn.functional.normalize(row, dim=0).numpy())
    return np.stack(rows)


@pytest.fixture(scope="session")
def reference() -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate(None)), device="cpu", local_files_only=True).encode(TEXTS)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_the_bundled_model_agrees_with_sentence_transformers(reference: np.ndarray, precision: str) -> None:
    rows = TextEncoder(settings=TextSettings(precision=precision)).encode_texts(TEXTS)
    cosine = (rows * reference).sum(axis=1)
    assert rows.shape == (len(TEXTS), 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert cosine.min() > (0.999999 if precision == "float32" else 0.999)


@pytest.mark.parametrize(("name", "pooling"), [("bert", "auto"), ("bert", "cls"), ("gpt2", "auto"), ("gpt2", "mean")])
def test_any_folder_works_and_pools_as_asked(tiny: dict[str, Path], name: str, pooling: str) -> None:
    encoder = TextEncoder(str(tiny[name]), settings=TextSettings(precision="float32", pooling=pooling, device="cpu"))
    expected = naive(tiny[name], TEXTS, {"bert": "mean", "gpt2": "last"}[name] if pooling == "auto" else pooling)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)
    assert is_causal(tiny[name]) == (name == "gpt2")
    assert encoder.dim == 16


def test_vectors_do_not_depend_on_batch_order_or_repetition(tiny: dict[str, Path]) -> None:
    whole = TextEncoder(str(tiny["bert"]), settings=FLOAT32).encode_texts(TEXTS)
    small = TextEncoder(str(tiny["bert"]), settings=FLOAT32.model_copy(update={"batch_tokens": 8}))
    order = [6, 0, 0, 3, 1, 2, 5, 4, 3]
    np.testing.assert_allclose(small.encode_texts([TEXTS[k] for k in order]), whole[order], atol=1e-6)


def test_a_repeated_text_is_read_once(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(str(tiny["bert"]), settings=FLOAT32)
    read: list[int] = []
    forward = encoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda tokens: read.append(len(tokens)) or forward(tokens))
    encoder.encode_texts(["a", "b", "a", "a"])
    assert sum(read) == 2


def test_an_item_without_text_has_a_zero_vector(tiny: dict[str, Path]) -> None:
    encoder = TextEncoder(str(tiny["bert"]), settings=FLOAT32)
    rows = encoder.encode(pl.DataFrame({"title": ["tea", None, " "]}))
    assert rows.any(axis=1).tolist() == [True, False, False]
    assert encoder.encode_texts([]).shape == (0, 16)


def test_long_texts_are_cut_to_max_tokens(tiny: dict[str, Path]) -> None:
    short = TextEncoder(str(tiny["bert"]), settings=FLOAT32.model_copy(update={"max_tokens": 5}))
    rows = short.encode_texts(["one two three", "one two three four five", "two"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert np.abs(rows[0] - rows[2]).max() > 1e-3
    assert TextEncoder(str(tiny["bert"]), settings=FLOAT32).max_tokens == 64


def test_batches_cover_every_text_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(0, 60, 500)
    found = list(batches(lengths, 100))
    assert sorted(np.concatenate(found).tolist()) == np.flatnonzero(lengths).tolist()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 100 for batch in found)
    assert len(found) < 1.3 * lengths.sum() / 100 + 60


def test_the_fingerprint_follows_whatever_decides_the_vectors(tiny: dict[str, Path], tmp_path: Path) -> None:
    base = TextEncoder(str(tiny["bert"]), settings=FLOAT32)
    copy = shutil.copytree(tiny["bert"], tmp_path / "elsewhere")
    (copy / ".gitattributes").write_text("not part of the model")
    assert TextEncoder(str(copy), settings=FLOAT32).fingerprint == base.fingerprint
    assert folder_fingerprint(tiny["gpt2"]) != folder_fingerprint(tiny["bert"])
    other = TextEncoder(str(copy), settings=FLOAT32, template=Template(parts=("title",)))
    assert other.fingerprint != base.fingerprint
    assert other.model_fingerprint == base.model_fingerprint
    bf16 = TextEncoder(str(copy), settings=TextSettings(precision="bfloat16", device="cpu"))
    assert bf16.model_fingerprint != base.model_fingerprint
    config = copy / "config.json"
    config.write_text(config.read_text().replace("1e-12", "1e-11"))
    assert TextEncoder(str(copy), settings=FLOAT32).model_fingerprint != base.model_fingerprint


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _foreign(folder: Path) -> None:
    kinds = ["sentence_transformers.models.Transformer", "os.Module"]
    content = [{"idx": n, "name": str(n), "path": "", "type": kind} for n, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(content))


def _static(folder: Path) -> None:
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.StaticEmbedding"}]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_only_pickle, "may run code"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "config.json").unlink(), "not a text model"),
        (lambda folder: (folder / "config.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "modules.json").write_text('{"a": 1}'), "modules.json is damaged"),
        (_foreign, "os.Module"),
        (_static, "no transformer"),
    ],
)
def test_a_damaged_or_unsafe_folder_is_refused_at_once(
    tiny: dict[str, Path], tmp_path: Path, damage: object, message: str
) -> None:
    folder = shutil.copytree(tiny["bert"], tmp_path / "model")
    damage(folder)
    with pytest.raises(ArtefactError, match=message):
        TextEncoder(str(folder))


def test_truncated_weights_are_refused_when_they_are_read(tiny: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny["bert"], tmp_path / "model")
    _truncated(folder)
    with pytest.raises(ArtefactError, match="cannot be loaded as a text model"):
        TextEncoder(str(folder), settings=FLOAT32).encode_texts(["tea"])


def test_a_model_that_does_not_exist_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match="no such model folder"):
        TextEncoder(str(tmp_path / "absent"))

    def refuse(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(NotFoundError, match=r"the hub does not give it \(offline\)"):
        TextEncoder("nobody/no-such-model")


def test_a_hub_name_is_fetched_once_and_read_as_a_folder(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tiny["bert"]))
    assert TextEncoder("org/model", settings=FLOAT32).encode_texts(["tea"]).shape == (1, 16)
    assert asked == ["org/model"]


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was(tiny: dict[str, Path]) -> None:
    import torch

    before = torch.get_num_threads()
    encoder = TextEncoder(str(tiny["bert"]), settings=FLOAT32.model_copy(update={"batch_tokens": 8}))
    try:
        torch.set_num_threads(1)
        alone = encoder.encode_texts(TEXTS)
        torch.set_num_threads(3)
        together = encoder.encode_texts(TEXTS)
        assert torch.get_num_threads() == 3
        with one_core_each(5) as pool:
            assert pool is not None
            assert list(pool.map(lambda _: torch.get_num_threads(), range(5))) == [1] * 5
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_a_caller_that_stops_leaves_no_thread_behind(tiny: dict[str, Path]) -> None:
    import threading

    before = threading.active_count()
    stream = TextEncoder(str(tiny["bert"]), settings=FLOAT32.model_copy(update={"batch_tokens": 8})).stream(TEXTS * 20)
    next(stream)
    stream.close()
    assert threading.active_count() <= before


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    run_programs("encode.md", 1)
    assert list(tmp_path.rglob("*.safetensors"))
