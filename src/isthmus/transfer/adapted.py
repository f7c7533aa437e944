"""An adapted model in use: scores, predictions and classes in a target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import ArtefactError, InputError
from isthmus.files import Json
from isthmus.split.temporal import Split
from isthmus.transfer.adapted_files import read_head
from isthmus.transfer.pretrained import read_card
from isthmus.transfer.scene import Reading, Scene, reading_of
from isthmus.types import Floats, Indices

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from isthmus.model.heads import Head


class Adapted:
    """A carrier with a head on it, shown the items of a corpus.

    Parameters
    ----------
    carrier : SequenceModel or LanguageModel
        Adapted.
    head : Head
        Of the task.
    scene : Scene
        Items and target.
    old : SequenceModel or LanguageModel, optional
        The carrier as it was carried over, for the additive form.
    known : int32 array (n_items,), optional
        Items that id embeddings stand for.

    Attributes
    ----------
    metrics : dict
        How good it was before and after, what was trained, and what that took.
    """

    name = "adapted"

    def __init__(
        self,
        carrier: PreTrainedModel,
        head: Head,
        scene: Scene,
        *,
        old: PreTrainedModel | None = None,
        known: Indices | None = None,
    ) -> None:
        self.carrier, self.head, self.scene, self.old = carrier, head, scene, old
        self.known: Indices = np.zeros(0, np.int32) if known is None else known
        self.metrics: Json = {}

    @classmethod
    def open(cls, folder: str | Path, split: Split, target: str | None = None) -> Adapted:
        """Return what :func:`isthmus.transfer.adapt.adapt` kept.

        Parameters
        ----------
        folder : str or Path
            Of one or several adapted targets.
        split : Split
            Over the corpus that it is to serve.
        target : str, optional
            Which target; may be left out if there is one.

        Raises
        ------
        NotFoundError
            No such target.
        ArtefactError
            Damaged, or of another format version.
        InputError
            Its id embeddings belong to another corpus.
        """
        from isthmus.transfer.adapters import load_adapters

        folder = Path(folder)
        about, weights = read_head(folder, target)
        name, known = str(about["target"]), weights.pop("known").numpy()
        if known.size and about["corpus"] != split.corpus.fingerprint:
            where, fix = split.corpus.name, "adapt on this split, or without ids"
            raise InputError("its id embeddings belong to another corpus", where=where, fix=fix)
        adapters = load_adapters(folder)
        labels, additive = cast("list[str]", about["labels"]), bool(about["additive"])
        dim = int(cast("int", about["dim"]))
        head = build_head(str(about["head"]), str(about["loss"]), dim, labels=labels, additive=additive)
        try:
            head.load_state_dict({key.removeprefix("head."): tensor for key, tensor in weights.items()})
        except RuntimeError as error:
            raise ArtefactError(
                "the weights of the head do not fit", where=folder / name, fix="adapt it again"
            ) from error
        scene = Scene.of(split, name, read_card(folder / "backbone"), hide=str(about.get("hidden", "")))
        old = adapters.backbone if additive else None
        found = cls(adapters.use(name), head.eval(), scene, old=old, known=known)
        found.metrics = cast("Json", about["metrics"])
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, if the head tells classes."""
        return self.head.settings.labels

    @cached_property
    def _readings(self) -> list[Reading]:
        """What was carried over, if that is added to, and the carrier."""
        old = [] if self.old is None else [reading_of(self.old, self.scene, self.known[:0])]
        return [*old, reading_of(self.carrier, self.scene, self.known)]

    @cached_property
    def _table(self) -> Tensor:
        return self._tensor(np.concatenate([reading.table() for reading in self._readings], axis=1))

    def score(self, histories: Histories) -> Floats:
        """Return the score of each item of the target for each history, (B, T) float32; higher is better.

        People without events get 0 for next items and rankings. A rating head scores by the rating.

        Raises
        ------
        InputError
            The head tells classes.
        """
        scores = self.predict(histories)
        if self.kind != "rating":
            scores[histories.lengths == 0] = 0.0
        return scores

    @property
    def kind(self) -> str:
        """Name of the head of the task."""
        from isthmus.model.heads import AdditiveHead

        return self.head.task.name if isinstance(self.head, AdditiveHead) else self.head.name

    def predict(self, histories: Histories, items: Sequence[int] | Indices | None = None) -> Floats:
        """Return what the head says of each item of the target for each history, (B, T), or of one item each, (B,).

        Parameters
        ----------
        histories : Histories
            Of B persons; items count in the corpus.
        items : int array (B,), optional
            Column of one item of the target for each person.

        Returns
        -------
        float32 array
            Scores for next items and rankings, ratings on the scale of the training ratings.

        Raises
        ------
        InputError
            The head tells classes.
        """
        if self.head.settings.labels:
            raise InputError("this head tells classes of items", where=self.scene.domain, fix="call classes(rows)")
        import torch

        with torch.no_grad():
            states = self._tensor(np.concatenate([r.states(histories) for r in self._readings], axis=1))
            chosen = None if items is None else torch.as_tensor(np.asarray(items, np.int64), device=states.device)
            found: Floats = self.head.predict(states, self._table, chosen).float().cpu().numpy()
        return found

    def classes(self, rows: Indices) -> Floats:
        """Return the probability of each class for some items of the corpus, (n, C) float32.

        Raises
        ------
        InputError
            The head compares people with items.
        """
        if not self.head.settings.labels:
            raise InputError(
                "this head tells no classes", where=self.scene.domain, fix="adapt with --head classification"
            )
        import torch

        with torch.no_grad():
            states = self._tensor(self._readings[-1].contents(rows))
            found: Floats = self.head.predict(states).float().cpu().numpy()
        return found

    def _tensor(self, array: Floats) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(next(self.head.parameters()).device)


def build_head(name: str, loss: str, dim: int, *, labels: Sequence[str] = (), additive: bool = False) -> Head:
    """Return a new head; with ``additive`` one whose frozen part stands for what was carried over.

    Parameters
    ----------
    name, loss : str
        See :func:`isthmus.model.heads.make_head`.
    dim : int
        Length of a state.
    labels : sequence of str
        Names of classes.
    additive : bool
        States and items then have twice the columns, those of the model carried over first.
    """
    from isthmus.model.heads import AdditiveHead, HeadSettings, make_head

    settings = HeadSettings(dim, start=0.0 if additive else 1.0, labels=tuple(labels))
    task = make_head(name, loss, settings=settings)
    if not additive:
        return task
    return AdditiveHead(make_head(name, loss, settings=HeadSettings(dim)), task, apart=True)
