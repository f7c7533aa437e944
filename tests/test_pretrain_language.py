"""Pre-training of the language carrier in worlds whose answer is known, its model folder, resuming, and adaptation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from tests.pages import run_programs
from tests.tiny_language import SIZES, STILL, WORDS
from transformers import BertConfig

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world, unrelated_world
from isthmus.data.simulate.worlds import World
from isthmus.encode.template import Template
from isthmus.encode.weights import locate
from isthmus.errors import InputError
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.language import LanguageModel
from isthmus.model.language_config import LanguageConfig
from isthmus.model.language_files import load_tokenizer
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import VALID, Split
from isthmus.train import loop
from isthmus.train.fit import training_data
from isthmus.train.language_carrier import LanguageCarrier
from isthmus.train.trainer import go
from isthmus.train.tune import validate
from isthmus.transfer.language import LanguagePretraining, Texts, adapt_language, joined, pretrain_language
from isthmus.transfer.pretrained import read_card

PLAN = replace(WORLD, persons=260, items=120)
LEARN = LanguagePretraining(
    domains=("source",),
    objectives={"contrastive-together": 1.0},
    steps=80,
    learning_rate=4e-3,
    hard=0,
    precision="float32",
)


@cache
def start() -> str:
    """Return the folder of a language model of one layer with random weights."""
    folder = mkdtemp()
    torch.manual_seed(0)
    sizes = {**SIZES, **STILL, "num_hidden_layers": 1, "hidden_size": 32}
    model = LanguageModel(LanguageConfig(backbone=BertConfig(vocab_size=WORDS, **sizes).to_dict()))
    model.tokenizer = load_tokenizer(locate(None))
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Zero:
    """A world in which nobody has a training event in the target."""

    split: Split
    data: TrainingData
    task: Task

    @classmethod
    def of(cls, world: World) -> Zero:
        split = Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.15, test_share=0.15)
        cold = split.few_shot("target", keep=0, share=1.0, seed=2)
        table = cold.corpus.items
        features = Features(places=Places.of(table), texts=tuple(Template().render(table).to_list()))
        data = training_data(cold, VALID, "target", features)
        assert not data.in_target[data.histories.items].any()
        return cls(cold, data, build_task(cold, VALID, "target"))

    def ndcg(self, model: str | Path, person: str = "items") -> float:
        chosen = {"start": str(model), "person": person, "precision": "float32"}
        return validate(LanguageCarrier(chosen).fit(self.data), self.task)

    def chance(self) -> float:
        class Random(LanguageCarrier):
            def score(self, histories: Histories) -> np.ndarray:
                rng = np.random.default_rng(0)
                return rng.random((len(histories), self.target.size), dtype=np.float32)

        method = Random()
        method.target = self.task.items
        return float(np.mean([validate(method, self.task) for _ in range(3)]))


@cache
def twin() -> Zero:
    return Zero.of(twin_world(1, PLAN))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("language") / "model"
    pretrain_language([twin().split], out, replace(LEARN, start=start()))
    return out


@pytest.mark.parametrize("person", ["items", "text"])
def test_in_the_twin_world_what_the_source_teaches_helps_where_nothing_is_known(pretrained: Path, person: str) -> None:
    before, after = twin().ndcg(start(), person), twin().ndcg(pretrained, person)
    assert before + 0.03 < after < 0.6, (before, after)


def test_in_the_unrelated_world_it_stays_at_chance(tmp_path: Path) -> None:
    world = Zero.of(unrelated_world(1, PLAN))
    pretrain_language([world.split], tmp_path / "model", replace(LEARN, start=start()))
    assert 0.5 * world.chance() < world.ndcg(tmp_path / "model") < 1.6 * world.chance() + 0.01


def test_the_folder_is_a_model_with_a_card_that_says_what_it_learned_from(pretrained: Path) -> None:
    card = read_card(pretrained)
    assert (card["carrier"], card["objectives"], card["target"]) == ("language", LEARN.objectives, None)
    assert card["domains"] == [{"corpus": "world", "domain": "source"}]
    assert card["items"] == 120
    learned = twin().data.histories.items
    assert card["events"] == learned.size
    assert card["log"]["steps"] == 80  # type: ignore[index]
    assert card["log"]["losses"][-1] < card["log"]["losses"][0] - 0.1  # type: ignore[index]
    model = LanguageModel.from_pretrained(pretrained)
    assert model.config.about["data"] == [twin().split.corpus.fingerprint]


class KilledError(Exception):
    """Stands for kill -9."""


def test_a_killed_pretraining_goes_on_and_ends_at_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(LEARN, start=start(), objectives={"mlm": 1.0}, steps=None, epochs=2.0, batch=40)
    whole = pretrain_language([twin().split], tmp_path / "whole", short)
    seen = []

    def killed(run: object, advance: object) -> object:
        plain = type(run).save

        def save(self: object, step: int, optimiser: object) -> None:
            plain(self, step, optimiser)
            seen.append(step)
            if len(seen) == 1:
                raise KilledError

        monkeypatch.setattr(type(run), "save", save)
        return go(run, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "go", killed)
    with pytest.raises(KilledError):
        pretrain_language([twin().split], tmp_path / "again", short, work=tmp_path / "work")
    assert not (tmp_path / "again").exists()
    assert list((tmp_path / "work").glob("checkpoint-*"))
    monkeypatch.undo()
    again = pretrain_language([twin().split], tmp_path / "again", short, work=tmp_path / "work")
    assert again["log"]["steps"] == whole["log"]["steps"]  # type: ignore[index]
    one, other = (LanguageModel.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_adaptation_predicts_the_target_and_trains_what_the_strategy_says(pretrained: Path, tmp_path: Path) -> None:
    world = twin_world(1, PLAN)
    split = Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.15, test_share=0.15)
    settings = LanguagePretraining(steps=3, learning_rate=1e-3, strategy="lora", hard=2, batch=8, precision="float32")
    said = adapt_language(pretrained, split, "target", tmp_path / "model", settings)
    total = sum(weight.numel() for weight in LanguageModel.from_pretrained(pretrained).parameters())
    assert said["target"] == "target"
    assert said["log"]["trainable"] < 0.1 * total  # type: ignore[index, operator]
    assert {row["domain"] for row in said["domains"]} == {"source", "target"}  # type: ignore[attr-defined]
    LanguageModel.from_pretrained(tmp_path / "model")
    lesson = Texts.of([split], settings).lesson(LanguageModel.from_pretrained(pretrained), settings, "target")
    assert lesson.predict.sum() == 120
    assert lesson.hard is not None
    known = lesson.hard[lesson.hard >= 0]
    assert np.isin(known, lesson.histories.items).all()
    final = adapt_language(pretrained, split, "target", tmp_path / "final", replace(settings, steps=1, final=True))
    assert final["events"] > said["events"]  # type: ignore[operator]


def test_several_splits_are_one_material_and_texts_without_events_count() -> None:
    split = twin().split
    both = Texts.of([split, split], replace(LEARN, unlabelled=("target",)))
    n = split.corpus.items.height
    assert both.items.height == 2 * n
    assert both.learned.sum() == 240
    assert both.read.sum() == 480
    half = both.histories.items.size // 2
    np.testing.assert_array_equal(both.histories.items[half:], both.histories.items[:half] + n)
    labels = both.labels()
    assert labels["domain"][1] == ["source", "target"]
    assert (labels["domain"][0] >= 0).all()


@pytest.mark.parametrize("rows", [[], [[]], [[1, 0], [], [2]]])
def test_joined_histories_are_those_of_the_parts(rows: list[list[int]]) -> None:
    part = Histories.of(rows)
    found = joined([(part, 0), (part, 3)])
    expected = [*rows, *([item + 3 for item in row] for row in rows)]
    assert [found.items[a:b].tolist() for a, b in zip(found.indptr, found.indptr[1:], strict=False)] == expected


def test_what_cannot_be_learned_is_refused(tmp_path: Path) -> None:
    split = twin().split
    for settings, message in (
        (LanguagePretraining(domains=("sorce",)), "did you mean 'source'"),
        (LanguagePretraining(objectives={"contrastive": 1.0}), "no objective 'contrastive'"),
        (LanguagePretraining(objectives={}), "no objective"),
        (LanguagePretraining(start=start(), objectives={"clm": 1.0}), "take mlm"),
        (LanguagePretraining(start=start(), domains=("target",)), "nothing to train on"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain_language([split], tmp_path / "model", settings)
    with pytest.raises(InputError, match="no domain 'goal'"):
        adapt_language(start(), split, "goal", tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_examples_of_the_page_run() -> None:
    run_programs("language.md", 4)
