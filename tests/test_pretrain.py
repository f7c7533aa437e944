"""Pre-training of the sequence carrier: from which events, resumed to the same metric, and what the folder promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.carried import TINY, pretrained, scene
from tests.tiny_reader import reader

from isthmus.errors import ArtefactError, InputError
from isthmus.model.sequence import SequenceModel
from isthmus.split.temporal import TRAIN, VALID, Split
from isthmus.train.fit import training_data
from isthmus.train.methods import make
from isthmus.train.weights import fingerprint, learned
from isthmus.transfer.pretrain import SequencePretraining, Source, _judges, pretrain_sequence, require_encoder
from isthmus.transfer.pretrained import CARD, read_card

ROOT = Path(__file__).parents[1]


def weights(folder: Path) -> str:
    return fingerprint(learned(SequenceModel.from_pretrained(folder)))


def test_the_card_tells_what_was_learned_from() -> None:
    card = read_card(pretrained())
    split = scene().split
    assert card["carrier"] == "sequence"
    assert card["domains"] == [{"corpus": "twin", "domain": "source"}]
    assert card["data"] == [{"corpus": "twin", "fingerprint": split.corpus.fingerprint}]
    inside = split.corpus.items["domain"].gather(split.events["item"]) == "source"
    assert 0 < card["events"] <= split.events.filter(inside & (pl.col("part") == TRAIN)).height
    assert card["items"] == 60
    assert "source (twin)" in (pretrained() / "README.md").read_text("utf-8")
    assert not [path for path in pretrained().iterdir() if path.suffix not in (".json", ".md", ".safetensors")]


def test_only_what_was_learned_from_has_a_name_and_the_whitening_goes_along(tmp_path: Path) -> None:
    pretrain_sequence([scene().split], tmp_path / "m", replace(TINY, shrink=0.5))
    config = SequenceModel.from_pretrained(tmp_path / "m").config
    assert config.domains == ["", "source"]
    assert config.platforms == ["", "north"]
    method = make("sequence", {"start": str(tmp_path / "m"), "epochs": 0, "ids": False})
    method.fit(training_data(scene().split, VALID, "target", scene().features))
    assert method.settings["shrink"] == 0.5


def test_what_people_did_elsewhere_does_not_choose_the_epoch() -> None:
    sources = Source.all_of(scene().split, TINY)
    alone = scene().split.only("source")
    model = SequenceModel.from_pretrained(pretrained())
    both, one = (_judges(found, TINY)(model) for found in (sources, Source.all_of(alone, TINY)))
    assert both == pytest.approx(one, abs=1e-6)


def test_it_learns_to_rank_the_source() -> None:
    log = read_card(pretrained())["log"]
    assert log["best"] > 0.12, "chance is below 0.08"
    assert log["losses"][-1] < log["losses"][0] - 0.1


def test_it_is_patient_where_learning_gets_worse_before_it_gets_better(tmp_path: Path) -> None:
    """It begins as a content method: the first steps away from there cost."""
    said = pretrain_sequence([scene().unseen], tmp_path / "model", replace(TINY, epochs=30, dim=32))
    watched = said["log"]["watched"]  # type: ignore[index, call-overload]
    assert len(watched) >= 15
    assert said["log"]["best"] == max(watched)  # type: ignore[index, call-overload]


def test_neither_the_target_nor_test_is_learned_from(tmp_path: Path) -> None:
    split = scene().split
    inside = split.corpus.items["domain"].gather(split.events["item"]) == "source"
    less = Split(split.corpus, split.events.filter(inside & (pl.col("part") <= VALID)), split.card)
    found = []
    for number, part in enumerate((split, less)):
        said = pretrain_sequence([part], tmp_path / str(number), replace(TINY, persons=0))
        found.append((said["events"], weights(tmp_path / str(number))))
    assert found[0] == found[1]


def test_a_seed_gives_the_same_model_and_several_splits_give_one(tmp_path: Path) -> None:
    split = scene().split
    tiny = replace(TINY, epochs=1, persons=0, domains=(), objectives={"next": 1.0, "views": 0.2})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        said = pretrain_sequence([split], tmp_path / name, replace(tiny, seed=seed))
        assert [row["domain"] for row in said["domains"]] == ["source", "target"]  # type: ignore[index, union-attr]
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    said = pretrain_sequence([split, scene("unrelated").split], tmp_path / "d", replace(tiny, domains=("source",)))
    assert [row["corpus"] for row in said["domains"]] == ["twin", "unrelated"]  # type: ignore[index, union-attr]


def test_only_persons_who_met_the_domain_teach() -> None:
    sources = Source.all_of(scene().split, SequencePretraining())
    assert [source.domain for source in sources] == ["source", "target"]
    for source in sources:
        met = source.material.rows[source.material.histories.items]
        assert source.material.predict[source.material.histories.items].any()
        assert set(source.material.rows[source.material.predict]) <= set(source.data.target.tolist())
        assert met.max() < scene().split.corpus.items.height


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"domains": ("sorce",)}, "did you mean 'source'"),
        ({"objectives": {"next": 1.0, "vews": 1.0}}, "did you mean 'views'"),
        ({"objectives": {"views": 1.0}}, "needs the objective next"),
        ({"objectives": {"next": -1.0}}, "objective next"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pretrain_sequence([scene().split], tmp_path / "model", replace(TINY, **changed))  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()


def test_a_domain_without_training_events_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training event"):
        pretrain_sequence([scene().unseen], tmp_path / "model", replace(TINY, domains=("target",)))


def test_what_another_encoder_reads_is_refused_with_the_one_to_give(tmp_path: Path) -> None:
    other = reader()
    require_encoder(pretrained(), None)
    with pytest.raises(InputError, match="another text encoder") as refused:
        require_encoder(pretrained(), other)
    assert refused.value.fix == "leave --model out"
    pretrain_sequence([scene().unseen], tmp_path / "m", replace(TINY, model=other, epochs=0.1, persons=0))
    require_encoder(tmp_path / "m", other)
    with pytest.raises(InputError, match="the bundled one") as refused:
        require_encoder(tmp_path / "m", None)
    assert refused.value.fix == f"give --model {other}"


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in pretrained().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(ArtefactError, match="format 99, this version reads"):
        read_card(folder)


def test_changed_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    read_card(folder)
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ArtefactError, match=r"config\.json was changed"):
        read_card(folder)
    config.unlink()
    with pytest.raises(ArtefactError, match=r"config\.json is missing"):
        read_card(folder)
    (folder / CARD).write_text('{"format": 1}')
    with pytest.raises(ArtefactError, match="damaged"):
        read_card(folder)
    with pytest.raises(ArtefactError):
        read_card(tmp_path / "nothing")


RUN = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.carried import TINY, scene
from isthmus.transfer.pretrain import pretrain_sequence
torch.set_num_threads(1)
split = scene().unseen
print("begins", flush=True)
pretrain_sequence([split], Path(sys.argv[1]), replace(TINY, epochs=20, persons=250), work=Path(sys.argv[2]))
"""


def running(out: Path, work: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(out), str(work)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_run_ends_at_the_same_metric(tmp_path: Path) -> None:
    with running(tmp_path / "whole", tmp_path / "w1") as process:
        assert process.wait(timeout=200) == 0, process.stderr.read() if process.stderr else ""
    with running(tmp_path / "killed", tmp_path / "w2") as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "w2").glob("checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list((tmp_path / "w2").glob("checkpoint-*")), "it was killed before anything was saved"
    assert not (tmp_path / "killed").exists()
    with running(tmp_path / "killed", tmp_path / "w2") as process:
        assert process.wait(timeout=200) == 0, process.stderr.read() if process.stderr else ""
    one, other = (read_card(tmp_path / name)["log"] for name in ("whole", "killed"))
    for key in ("watched", "losses", "best", "best_step"):
        assert one[key] == other[key]
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")
