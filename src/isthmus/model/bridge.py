"""The bridge: what somebody did on other platforms gives a place among the items of the target, in closed form.

    source state  = mean of the source items' factors (events) and of their texts' factors, each of length 1
    target state  = source state @ map                        (kind "ridge")
                  + source state @ map made for this person   (kind "meta", isthmus.model.bridge_net)
    score         = what is popular lately + loud * (target state . target item, damped by how known the item is)

Target events of the person play no part: the other methods of a blend read those. Somebody without source events gets
what is popular.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData, grown
from isthmus.model.blend import standardise
from isthmus.model.popularity import Popularity
from isthmus.rng import generator
from isthmus.types import Bools, Floats, Indices

#: Kinds of bridge.
KINDS: Final = ("ridge", "meta")
#: Items are scaled by their number of persons to the minus this before they are factorised.
SCALING: Final = 0.5


@dataclass(frozen=True)
class Lesson:
    """What a bridge is learned from: people of the training part who have events on both sides.

    Parameters
    ----------
    source : Histories
        Their source events, ``P`` persons.
    wanted : csr array (P, T)
        Their target events.
    counts : float32 array (T,)
        Persons who met each target item, and one more.
    """

    source: Histories
    wanted: sparse.csr_array
    counts: Floats


class Bridge(Method):
    """A map from source state to target state, learned on people of the training part who are on both sides.

    ``ridge``: one map for all by ridge regression of the target state on the source state, as EMCDR does (Man et al.,
    IJCAI 2017, equation 4, with a linear map). ``meta``: to it is added a map that a network makes for each person
    from what the source history is about, by attention, as in PTUPCDR (Zhu et al., WSDM 2022, equations 2 to 6),
    learned on the wanted items themselves (equation 8); the epoch is chosen on a tenth of those people. Factors are
    truncated singular vectors, those of texts of the language model's vectors or else of TF-IDF. ``text`` is the
    share of the state that comes from texts, so that source items nobody met count too.
    """

    name = "bridge"
    defaults: ClassVar[Settings] = {
        "kind": "ridge",
        "half_life": 30.0,
        "loud": 0.1,
        "dim": 64,
        "l2": 30.0,
        "text": 0.5,
        "fame": 0.3,
        "decay": 0.9,
        "epochs": 4,
    }
    grid: ClassVar = {
        "half_life": (30.0, 7.0, 0.0),
        "kind": ("ridge", "meta"),
        "loud": (0.1, 0.05, 0.2, 0.4),
        "text": (0.5, 0.0, 1.0),
        "fame": (0.3, 0.0, 0.5),
    }
    reading: ClassVar[tuple[str, ...]] = ("loud", "text", "fame", "decay")
    dated = ("half_life",)
    #: Factors of source items from events and from texts, (2, N, d); target rows are zeros.
    sources: Floats
    #: Factors of the target items, (T, d), and their counts, (T,).
    targets: Floats
    counts: Floats
    #: How popular each target item is, (T,), standardised; and how many there were when it was learned, (1,).
    prior: Floats
    size: Floats
    #: Mean source state, (2, d), and its map to the target, (2, d, d).
    means: Floats
    maps: Floats
    #: From the words, or the vectors, of items to text factors, (W, d).
    words: Floats
    #: Weights of the network of the kind "meta".
    net: State

    def _fit(self, data: TrainingData, seed: int) -> None:
        if self.settings["kind"] not in KINDS:
            raise InputError(f"no bridge of kind '{self.settings['kind']}'", fix=f"kinds: {', '.join(KINDS)}")
        dim = int(self.number("dim"))
        outside = ~data.in_target
        source, wanted, lesson = _sides(data)
        self.counts, self.size = lesson.counts, np.array([data.target.size], np.float32)
        half_life = self.number("half_life") if data.dated else 0.0
        lately = Popularity({"half_life": half_life}).fit(data)
        self.prior = standardise(lately.score(Histories.of([[]])))[0]
        self.targets = _factors(wanted, dim, seed)
        events = np.zeros((data.n_items, dim), np.float32)
        rows = np.flatnonzero(outside)
        events[rows] = _factors(sparse.csr_array(source[:, rows]), dim, seed)
        self.words, texts = np.zeros((0, dim), np.float32), np.zeros_like(events)
        said = _said(data.features)
        if said is not None:
            self.words = _directions(said, dim, seed)
            texts = _read(said, self.words) * outside[:, None]
        self.sources = np.stack([events, texts])
        self._regress(lesson)
        self.net = {}
        if self.settings["kind"] == "meta" and len(lesson.source) > 1:
            from isthmus.model.bridge_net import learn_net

            self.net = learn_net(self, lesson, seed)

    def _regress(self, lesson: Lesson) -> None:
        """Learn the maps: each kind of source state to the target state."""
        known = lesson.source.matrix(self.n_items)
        scale = sparse.diags_array((lesson.counts**-SCALING).astype(np.float64))
        states = np.asarray((lesson.wanted @ scale) @ self.targets, dtype=np.float64)
        dim = self.targets.shape[1]
        self.means, self.maps = np.zeros((2, dim), np.float32), np.zeros((2, dim, dim), np.float32)
        if not len(lesson.source):
            return
        for place, table in enumerate(self.sources):
            said = _unit(known @ table).astype(np.float64)
            self.means[place] = said.mean(axis=0)
            centred = said - said.mean(axis=0)
            ridge = centred.T @ centred + self.number("l2") * np.eye(dim)
            self.maps[place] = np.linalg.solve(ridge, centred.T @ (states - states.mean(axis=0)))

    def source_states(self, histories: Histories, *, decay: float = 1.0) -> Floats:
        """Return the source state of each person, centred, by events and by texts, (B, 2, d); zeros for no event."""
        known = histories.matrix(self.n_items, decay=decay)
        said = [_unit(np.asarray(known @ table, dtype=np.float32)) for table in self.sources]
        centred = [np.where(np.any(part != 0, axis=1, keepdims=True), part - self.means[i], 0) for i, part in
                   enumerate(said)]  # fmt: skip
        return np.stack(centred, axis=1).astype(np.float32)

    def target_states(self, histories: Histories) -> Floats:
        """Return where the bridge puts each person among the target items, (B, d); zeros without source events."""
        said = self.source_states(histories, decay=self.number("decay"))
        text = np.float32(self.settings["text"])
        placed: Floats = (1 - text) * said[:, 0] @ self.maps[0] + text * said[:, 1] @ self.maps[1]
        if self.net:
            from isthmus.model.bridge_net import personal

            placed = placed + personal(self, histories, said)
        return placed

    def score(self, histories: Histories) -> Floats:
        """Return the scores, (B, T): what is popular for people without source events."""
        items = self.targets * (self.counts ** np.float32(SCALING - self.number("fame")))[:, None]
        placed = self.target_states(histories)
        size = np.sqrt(np.einsum("bd,de,be->b", placed, items.T @ items, placed) / self.size[0])[:, None]
        tilt = np.divide(placed, size, out=np.zeros_like(placed), where=size > 1e-9)
        return np.asarray(self.prior + np.float32(self.number("loud")) * tilt @ items.T, dtype=np.float32)

    def state(self) -> State:
        """Return factors, counts, means, maps, and the network's weights."""
        arrays: State = {name: vars(self)[name] for name in _ARRAYS}
        return {**arrays, **{f"net.{name}": array for name, array in self.net.items()}}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back what :meth:`state` returned."""
        for name in _ARRAYS:
            vars(self)[name] = state[name].astype(np.float32)
        self.net = {
            name.removeprefix("net."): array.astype(np.float32)
            for name, array in state.items()
            if name.startswith("net.")
        }

    def extend(self, features: Features, target: Indices) -> None:
        """Read the texts of new source items; new target items have no place yet."""
        old = self.sources.shape[1]
        events, texts = grown(self.sources[0], self.n_items), grown(self.sources[1], self.n_items)
        said = _said(features)
        if said is not None and self.words.size:
            fresh: Bools = ~np.isin(np.arange(old, self.n_items), target)
            texts[old:] = _read(sparse.csr_array(said[old:]), self.words) * fresh[:, None]
        self.sources = np.stack([events, texts])
        self.targets, self.counts = grown(self.targets, target.size), grown(self.counts, target.size, 1.0)
        self.prior = grown(self.prior, target.size, float(self.prior.min(initial=0)))


_ARRAYS: Final = ("sources", "targets", "counts", "prior", "size", "means", "maps", "words")


def _sides(data: TrainingData) -> tuple[sparse.csr_array, sparse.csr_array, Lesson]:
    """Return everybody's source events (P, N), everybody's target events (P, T), and those of who has both."""
    histories = data.histories
    inside = data.in_target[histories.items]
    source, target = histories.keep(~inside), histories.keep(inside)
    wanted = sparse.csr_array(target.matrix(data.n_items)[:, data.target])
    counts = 1 + np.bincount(wanted.indices, minlength=data.target.size).astype(np.float32)
    both = np.flatnonzero((source.lengths > 0) & (target.lengths > 0))
    lesson = Lesson(source.take(both), sparse.csr_array(wanted[both]), counts)
    return source.matrix(data.n_items), wanted, lesson


def _factors(matrix: sparse.csr_array, dim: int, seed: int) -> Floats:
    """Return the right singular vectors of a persons × items matrix with scaled columns, (items, dim)."""
    counts = 1 + np.bincount(matrix.indices, minlength=matrix.shape[1])
    return _directions(sparse.csr_array(matrix @ sparse.diags_array(counts**-SCALING)), dim, seed)


def _directions(matrix: sparse.csr_array, dim: int, seed: int) -> Floats:
    """Return the ``dim`` strongest right singular vectors, (columns, dim); columns of zeros where there are fewer."""
    rank = min(dim, *matrix.shape)
    found = np.zeros((matrix.shape[1], dim), np.float32)
    if rank == 0 or matrix.nnz == 0:
        return found
    if min(matrix.shape) <= 4 * dim:
        _, sizes, right = np.linalg.svd(matrix.toarray().astype(np.float64), full_matrices=False)
        right = right[:rank] * (sizes[:rank, None] > 1e-6 * sizes[0])
    else:
        from sklearn.utils.extmath import randomized_svd

        draw = int(generator(seed, "bridge", "factors").integers(1 << 31))
        _, _, right = randomized_svd(sparse.csr_matrix(matrix), rank, n_iter=3, random_state=draw)
    found[:, :rank] = right[:rank].T
    return found


def _said(features: Features) -> sparse.csr_array | None:
    """Return what is read of the items, (N, W): the language model's vectors, or else TF-IDF."""
    return features.text if features.vectors is None else sparse.csr_array(features.vectors)


def _read(said: sparse.csr_array, words: Floats) -> Floats:
    """Return the text factors of items, rows of length 1 or 0, (N, d)."""
    return _unit(np.asarray(said @ words, dtype=np.float32))


def _unit(table: Floats) -> Floats:
    """Return the rows of ``table`` with length 1; rows of zeros stay."""
    size = np.linalg.norm(table, axis=1, keepdims=True)
    scaled: Floats = np.divide(table, size, out=np.zeros_like(table), where=size > 1e-9)
    return scaled
