"""Two towers with id dropout: new items are placed by the company their kind keeps, known ones by their own too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.content import TfidfContent
from isthmus.model.sequence import SequenceConfig, SequenceModel
from isthmus.model.towers import Towers

#: Items of four kinds of ten; kinds 0 and 1 are met together, kinds 2 and 3 too. The last of each kind is new.
KINDS = np.repeat(np.arange(4), 10)
NEW = np.arange(9, 40, 10)
QUICK = {"dim": 8, "epochs": 25, "learning_rate": 1e-2, "decay": 1.0}


def planted(persons: int = 200) -> TrainingData:
    rng = np.random.default_rng(0)
    rows = []
    for person in range(persons):
        both = (0, 1) if person % 2 else (2, 3)
        rows.append(rng.choice(np.flatnonzero(np.isin(KINDS, both) & ~np.isin(np.arange(40), NEW)), 6).tolist())
    words = np.eye(4, dtype=np.float32)[KINDS] + 0.05 * rng.random((40, 4)).astype(np.float32)
    text = sparse.csr_array(words / np.linalg.norm(words, axis=1, keepdims=True))
    histories = Histories.of(rows)
    return TrainingData(histories, np.arange(40, dtype=np.int32), 40, int(histories.ts.max()), Features(text))


@pytest.fixture(scope="module")
def fitted() -> Towers:
    method = Towers(QUICK)
    method.fit(planted())
    return method


def test_a_new_item_is_found_through_the_company_its_kind_keeps(fitted: Towers) -> None:
    asked = Histories.of([[0, 1, 2], [20, 21]])
    plain = TfidfContent().fit(planted()).score(asked)[:, NEW]
    told = fitted.score(asked)[:, NEW]
    assert abs(plain[0, 1] - plain[0, 2]) < 0.1, "likeness cannot tell kind 1 from kind 2"
    assert told[0, 1] > told[0, [2, 3]].max() + 0.5
    assert told[1, 3] > told[1, [0, 1]].max() + 0.5


def test_a_new_item_stands_among_the_known_ones_of_its_kind_and_not_below_all_others(fitted: Towers) -> None:
    told = fitted.score(Histories.of([[0, 1, 2]]))[0]
    assert told[9] > told[KINDS >= 2].max()


def test_a_new_item_in_the_history_speaks_as_its_kind_does(fitted: Towers) -> None:
    new, old = (fitted.score(Histories.of([[item]]))[0] for item in (9, 0))
    assert np.corrcoef(new, old)[0, 1] > 0.8


def test_with_dropout_the_content_says_what_the_ids_say_and_without_it_less() -> None:
    """The place of a known item by its content alone is nearer to its whole place when ids were dropped."""

    def agreement(dropout: float) -> float:
        method = Towers({**QUICK, "dropout": dropout})
        method.fit(planted())
        known = np.setdiff1d(np.arange(40), NEW)
        whole, own = method.outputs[known], method.ids[1][known]
        return float(np.linalg.norm(own) / np.linalg.norm(whole))

    assert agreement(0.5) < agreement(0.0)


def test_only_items_that_were_met_have_an_id(fitted: Towers) -> None:
    assert not fitted.ids[:, NEW].any()
    assert not fitted.fame[NEW].any()
    assert fitted.ids[:, 0].any()


def test_nothing_known_of_items_is_refused() -> None:
    with pytest.raises(InputError, match="item texts"):
        Towers().fit(replace(planted(), features=Features()))


def test_the_sequence_model_drops_ids_while_it_learns_only() -> None:
    config = SequenceConfig(width=4, dim=8, layers=1, n_items=3, id_dropout=0.999, domains=[""], platforms=[""])
    model = SequenceModel.seeded(config, 0)
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model.attend(vectors, Places.nameless(3), np.arange(3, dtype=np.int32))
    with torch.no_grad():
        learning, asked = model.train().items(), model.eval().items()
        assert model.adaptor is not None
        assert model.ids is not None
        said = model.adaptor(model.catalogue.vectors)
        np.testing.assert_allclose(learning.numpy(), said.numpy(), atol=1e-6)
        np.testing.assert_allclose(asked.numpy(), (said + model.ids.weight).numpy(), atol=1e-6)
