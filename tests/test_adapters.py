"""Several targets on one backbone: exact on disk and in memory, small, switched at once, and damage is told."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft", reason="the extra 'transfer' is not installed")

import torch
from tests.tiny_carriers import CARRIERS, KNOWN, PLACES, VECTORS, carrier, clone, outputs, save, shown
from torch import Tensor
from transformers import PreTrainedModel

from isthmus.errors import ArtefactError, InputError, NotFoundError
from isthmus.model.base import Places
from isthmus.transfer.adapters import Switchable, load_adapters, save_adapter, save_backbone
from isthmus.transfer.strategies import STRATEGIES, StrategySettings, plain, prepare

BOTH = pytest.mark.parametrize("kind", CARRIERS)


@cache
def adapted(kind: str, strategy: str) -> tuple[PreTrainedModel, Tensor]:
    """Return a model whose trained weights have moved, and what it gives."""
    model = clone(carrier(kind))
    prepare(model, StrategySettings(strategy), name=strategy)
    torch.manual_seed(len(strategy))
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval(), outputs(model)


def written(folder: Path, kind: str = "gpt2", strategies: tuple[str, ...] = ("lora", "adapter")) -> Path:
    save_backbone(carrier(kind), folder)
    for strategy in strategies:
        save_adapter(adapted(kind, strategy)[0], folder, strategy)
    return folder


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*.safetensors"))


def storages(model: PreTrainedModel) -> dict[int, int]:
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in model.state_dict().values()}


@BOTH
def test_each_target_reads_as_its_own_model_to_the_bit_in_any_order(kind: str, tmp_path: Path) -> None:
    switch = load_adapters(written(tmp_path, kind, STRATEGIES))
    assert switch.names == tuple(sorted(STRATEGIES))
    base = outputs(carrier(kind))
    for strategy in (*STRATEGIES, *reversed(STRATEGIES)):
        expected = adapted(kind, strategy)[1]
        assert torch.equal(outputs(shown(switch.use(strategy))), expected)
        assert not torch.equal(expected, base)
    assert torch.equal(outputs(shown(switch.backbone)), base)


@BOTH
def test_targets_share_the_backbone_on_disk_and_in_memory(kind: str, tmp_path: Path) -> None:
    folder = written(tmp_path, kind, STRATEGIES)
    switch = load_adapters(folder)
    base, whole = storages(switch.backbone), size(folder / "backbone")
    for strategy in STRATEGIES:
        model, path = adapted(kind, strategy)[0], folder / "adapters" / strategy
        wanted = sum(4 * t.numel() for name, t in model.named_parameters() if t.requires_grad or "ranknum" in name)
        assert wanted <= size(path) <= wanted + 10_000
        own = {key: n for key, n in storages(switch.use(strategy)).items() if key not in base}
        assert sum(own.values()) <= wanted + 10_000
        assert strategy == "full" or kind == "sequence" or size(path) < whole / 20
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert names <= {".json", ".safetensors", ".md", ".txt", ".jinja"}


def test_choosing_is_quick_and_a_block_gives_back_the_choice(tmp_path: Path) -> None:
    switch = load_adapters(written(tmp_path))
    assert switch.model is switch.backbone
    start = time.perf_counter()
    for _ in range(1000):
        switch.use("lora")
        switch.use("adapter")
    assert time.perf_counter() - start < 1.0
    with switch.using("lora") as outer:
        assert switch.model is outer
        with contextlib.suppress(ZeroDivisionError), switch.using("adapter") as inner:
            assert switch.model is inner is not outer
            _ = 1 / 0
        assert switch.model is outer
    assert switch.model is switch.use("adapter")
    with pytest.raises(
        NotFoundError, match=r"no adapter 'lorra' \(did you mean 'lora'\?\). Fix: there are adapter, lora"
    ):
        switch.use("lorra")


def test_threads_choose_for_themselves(tmp_path: Path) -> None:
    switch = load_adapters(written(tmp_path, "bert", ("lora", "prefix", "adapter", "top")))

    def read(name: str) -> bool:
        with switch.using(name):
            time.sleep(0.001)
            return torch.equal(outputs(switch.model), adapted("bert", name)[1])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, switch.names * 6))


def test_a_target_may_have_new_names_ids_and_classes(tmp_path: Path) -> None:
    places = Places(PLACES.domain, PLACES.platform, ("Food", "Radio"), ("shop",))
    save_backbone(carrier("sequence"), tmp_path / "events")
    model = carrier("sequence").grown(places, 5)
    prepare(model, StrategySettings("lora"))
    model.eval().attend(VECTORS, places, KNOWN[:5])
    save_adapter(model, tmp_path / "events", "Radio & more")
    twin = load_adapters(tmp_path / "events").use("Radio & more")
    twin.attend(VECTORS, places, KNOWN[:5])
    assert torch.equal(outputs(twin), outputs(model))
    assert "Radio" in twin.config.domains

    base = carrier("bert")
    save_backbone(base, tmp_path / "words")
    model = clone(base).prepare(["classify"], {"domain": ["a", "b"]})
    prepare(model, StrategySettings("frozen"))
    save_adapter(model, tmp_path / "words", "classes")
    switch = load_adapters(tmp_path / "words")
    twin = switch.use("classes")
    assert torch.equal(twin.classes["domain"].weight, model.classes["domain"].weight)
    assert twin.tokenizer is switch.backbone.tokenizer is not None


def test_a_plain_model_can_be_kept_too_only_larger(tmp_path: Path) -> None:
    folder = written(tmp_path, "bert", ("lora",))
    model = plain(clone(adapted("bert", "lora")[0]))
    save_adapter(model, folder, "merged")
    assert torch.equal(outputs(load_adapters(folder).use("merged")), outputs(model))
    assert size(folder / "adapters" / "merged") > size(folder / "adapters" / "lora")


def test_an_adapter_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, "bert", ("lora",))
    save_adapter(adapted("bert", "prefix")[0], folder, "lora")
    assert torch.equal(outputs(load_adapters(folder).use("lora")), adapted("bert", "prefix")[1])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.transfer.adapters.save_file", full)
    with pytest.raises(Exception, match="the disk is full"):
        save_adapter(adapted("bert", "top")[0], folder, "lora")
    monkeypatch.undo()
    assert torch.equal(outputs(load_adapters(folder).use("lora")), adapted("bert", "prefix")[1])
    assert [path.name for path in (folder / "adapters").iterdir()] == ["lora"]


def edit(path: Path, **changes: object) -> None:
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit(f / "adapters/lora/adapter.json", format=2), "format 2, this version reads 1"),
        (lambda f: edit(f / "adapters/lora/adapter.json", backbone="0"), "of another backbone"),
        (lambda f: edit(f / "adapters/lora/adapter.json", strategy={"strategy": "lora"}), "damaged"),
        (lambda f: edit(f / "adapters/lora/adapter.json", config=None), "damaged"),
        (lambda f: cut(f / "adapters/lora/adapter.json"), "damaged"),
        (lambda f: (f / "adapters/lora/adapter.json").unlink(), "is not a saved adapter"),
        (lambda f: cut(f / "adapters/lora/adapter.safetensors"), "missing or damaged"),
        (lambda f: (f / "adapters/lora/adapter.safetensors").unlink(), "missing or damaged"),
        (lambda f: cut(f / "backbone/model.safetensors"), "damaged"),
        (lambda f: (f / "backbone/config.json").unlink(), "is not a backbone"),
        (lambda f: edit(f / "backbone/config.json", model_type="bert"), "no carrier"),
    ],
)
def test_damage_is_told(damage: object, message: str, tmp_path: Path) -> None:
    written(tmp_path, "bert", ("lora",))
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ArtefactError, match=message):
        load_adapters(tmp_path)


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path, "bert", ("lora",))
    about = folder / "adapters" / "lora" / "adapter.json"
    said = json.loads(about.read_text())
    edit(about, strategy={**said["strategy"], "rank": 3})
    with pytest.raises(ArtefactError, match="no fitting weights"):
        load_adapters(folder)
    edit(about, strategy={**said["strategy"], "strategy": "top"})
    with pytest.raises(ArtefactError, match="weights that fit nothing"):
        load_adapters(folder)


def test_wrong_uses_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not a backbone"):
        save_adapter(carrier("bert"), tmp_path, "x")
    save_backbone(carrier("sequence"), tmp_path)
    with pytest.raises(InputError, match="exists"):
        save_backbone(carrier("sequence"), tmp_path)
    with pytest.raises(InputError, match="its backbone is a SequenceModel"):
        save_adapter(carrier("bert"), tmp_path, "x")
    for name in ("../x", "", ".x", "a/b"):
        with pytest.raises(InputError, match="cannot be the name"):
            save_adapter(carrier("sequence"), tmp_path, name)
    switch = load_adapters(tmp_path)
    assert isinstance(switch, Switchable)
    assert switch.names == ()
    with pytest.raises(NotFoundError, match="there are none"):
        switch.use("x")


def test_the_backbone_of_a_target_may_itself_have_inserts(tmp_path: Path) -> None:
    base = clone(adapted("sequence", "adapter")[0])
    save_backbone(plain(base), tmp_path)
    prepare(base, StrategySettings("top"))
    with torch.no_grad():
        base.blocks[2].up.bias.add_(np.float32(0.5))
    save_adapter(base, tmp_path, "second")
    assert torch.equal(outputs(shown(load_adapters(tmp_path).use("second"))), outputs(base))
    save(base, tmp_path / "copy")
