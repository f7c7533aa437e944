"""Learning to adapt: a start from which a few steps on a few events fit a new person, without a training job.

    state(person)  = carrier(events)                     the sequence model; its LoRA weights are learned
    asked          = state + head(state)                 the head is linear and zero at first
    adapted        = start - rate * gradient, ``steps`` times, of the next-item loss on the person's own events

Ways to find the start, all of the first order:

    maml     the gradient of the loss on later events, taken where the person's steps ended (Finn et al., ICML 2017,
             section 5.2); the head and LoRA are adapted
    anil     the same, but only the head is adapted (Raghu et al., ICLR 2020)
    reptile  towards where the steps on all events of the task ended (Nichol et al., 2018, algorithm 2)
    plain    the loss itself, no steps: ordinary training, the control
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from isthmus.data.sequences import Histories
from isthmus.errors import ArtefactError, InputError
from isthmus.files import new_folder, read_json, write_json
from isthmus.model.base import State, TrainingData
from isthmus.model.catalogue import Events
from isthmus.model.lora import add_lora
from isthmus.model.sequence import SequenceModel
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.train.carriers import SequenceCarrier
from isthmus.transfer.meta_tasks import Shape, Tasks, person_tasks, serving_tasks
from isthmus.types import Floats, Ints

WAYS: Final = ("maml", "anil", "reptile", "plain")
#: People adapted at a time.
BLOCK: Final = 64
#: What :meth:`MetaLearner.chosen` tries.
RATES: Final = (0.03, 0.1, 0.3, 1.0)
STEPS: Final = (1, 3, 5)
MANIFEST: Final = "isthmus.json"

#: Weights by name.
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class MetaSettings:
    """How to learn to adapt.

    Parameters
    ----------
    way : str
        One of :data:`WAYS`.
    rate, steps : float, int
        Of the steps that adapt.
    epochs : int
        Times that every person is a task.
    learning_rate : float
        Of the start; with ``reptile`` the share of the way that it moves is this times 100, at most 1.
    batch : int
        Tasks of a step.
    candidates : int
        Items that a next item is compared with, drawn at random.
    rank : int
        Of LoRA.
    shape : Shape
        How tasks are cut.
    seed : int
        For everything that draws.
    """

    way: str = "anil"
    rate: float = 0.1
    steps: int = 3
    epochs: int = 5
    learning_rate: float = 2e-3
    batch: int = 32
    candidates: int = 256
    rank: int = 4
    shape: Shape = field(default_factory=Shape)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.way not in WAYS:
            raise InputError(f"no way '{self.way}' to learn to adapt", fix=f"ways: {', '.join(WAYS)}")
        if self.rate <= 0 or self.steps < 0 or self.candidates < 1:
            raise InputError(f"rate {self.rate}, steps {self.steps}, candidates {self.candidates} are impossible")


class Asker(nn.Module):  # type: ignore[misc]
    """The carrier with LoRA, and a linear head that adds to its states; at first it changes nothing."""

    def __init__(self, carrier: SequenceModel, rank: int) -> None:
        super().__init__()
        self.carrier = copy.deepcopy(carrier).eval()
        add_lora(self.carrier, rank, float(rank), 0.0)
        self.head = nn.Linear(carrier.config.dim, carrier.config.dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, events: Tensor, table: Tensor) -> Tensor:
        """Return what is asked for after each event, (M, L, d); ``events`` (3, M, L), ``table`` (N, d)."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no form for many weights at once
            states: Tensor = self.carrier.persons(Events(events[0], events[1], events[2]), table)
        return states + self.head(states)

    def learned(self, *, head: bool = False) -> Weights:
        """Return the weights that are learned, or those of the head alone."""
        inside = ("lora_", "head.")[head:]
        return {
            name: tensor
            for name, tensor in self.named_parameters()
            if any(part in name for part in inside) and "adaptor" not in name
        }


class MetaLearner:
    """A start, and the steps that adapt it to a person when a list is asked for.

    Parameters
    ----------
    method : SequenceCarrier
        Fitted; its first member is the carrier, its item vectors stay as they are.
    settings : MetaSettings
        How.
    """

    def __init__(self, method: SequenceCarrier, settings: MetaSettings) -> None:
        self.settings, self.name = settings, settings.way
        self.target, self.dated = method.target, method.has_dates
        self.table = torch.from_numpy(np.ascontiguousarray(method.tables[0]))
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.asker = Asker(method.models[0], settings.rank)
        self.asker.requires_grad_(False)
        self.pool = self._pools(generator(settings.seed, "meta", "serving"), 4 * settings.candidates)

    def learn(self, data: TrainingData, tasks: Tasks | None = None) -> MetaLearner:
        """Find the start on the training people of ``data``, or on ``tasks``; return self.

        Raises
        ------
        InputError
            Nobody has two events of the target.
        """
        settings, rng = self.settings, generator(self.settings.seed, "meta", "tasks")
        weights = self.asker.learned()
        optimiser = torch.optim.Adam(weights.values(), lr=settings.learning_rate)
        for tensor in weights.values():
            tensor.requires_grad_(True)
        for _ in range(settings.epochs):
            drawn = tasks or person_tasks(data.histories, self.target, settings.shape, rng, dated=self.dated)
            if not len(drawn):
                raise InputError("nobody has two training events in the target", fix="name another target")
            order = rng.permutation(len(drawn))
            for start in range(0, order.size, settings.batch):
                self._update(drawn.take(order[start : start + settings.batch]), optimiser, rng)
        self.asker.requires_grad_(False)
        return self

    def adapt(self, histories: Histories) -> Weights:
        """Return the weights of each person after the steps, each with a first axis of ``B`` people."""
        return self._steps(*self._serving(histories))

    def score(self, histories: Histories) -> Floats:
        """Return the score of each target item for each person, adapted to their target events, (B, T) float32.

        People without target events are scored from the start as it is; those without any event get 0.
        """
        found = np.zeros((len(histories), self.target.size), np.float32)
        table = self.table[torch.from_numpy(self.target.astype(np.int64))].T
        for start in range(0, len(histories), BLOCK):
            some = histories.take(np.arange(start, min(start + BLOCK, len(histories))))
            batch, pools = self._serving(some)
            adapted = self._steps(batch, pools)
            with torch.no_grad():
                asked = vmap(self._ask)(adapted, batch.events)
                last = asked[torch.arange(len(some)), 0, batch.last]
                found[start : start + BLOCK] = (last @ table).numpy()
        found[histories.lengths == 0] = 0.0
        return found

    def chosen(self, task: Task, judge: Callable[[MetaLearner, Task], float]) -> MetaLearner:
        """Return the learner with the rate and number of steps that ``judge`` likes best on a validation task."""
        tried = [self.stepping(self.settings.rate, 0), *(self.stepping(rate, n) for rate in RATES for n in STEPS)]
        return max(tried, key=lambda learner: judge(learner, task))

    def save(self, path: str | Path) -> MetaLearner:
        """Write what was learned to a folder, without the carrier; return self."""
        with new_folder(Path(path)) as folder:
            weights = {name: tensor.detach().contiguous() for name, tensor in self.asker.learned().items()}
            save_file(weights, folder / "start.safetensors")
            write_json(folder / MANIFEST, {"kind": "meta", "settings": asdict(self.settings)})
        return self

    @classmethod
    def open(cls, path: str | Path, method: SequenceCarrier) -> MetaLearner:
        """Return what :meth:`save` wrote, on the carrier it was learned with.

        Raises
        ------
        ArtefactError
            Nothing there, damaged, or of another carrier.
        """
        path = Path(path)
        said = read_json(path / MANIFEST, what="start").get("settings")
        if not isinstance(said, dict):
            raise ArtefactError("is not a start to adapt from", where=path)
        try:
            learner = cls(method, MetaSettings(**{**said, "shape": Shape(**said["shape"])}))
            own, weights = learner.asker.learned(), load_file(path / "start.safetensors")
            if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in weights.items()}:
                raise ArtefactError("was learned with another carrier", where=path, fix="learn it again")
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise ArtefactError(f"the start is damaged: {error}", where=path, fix="learn it again") from error
        return learner.take({name: tensor.numpy() for name, tensor in weights.items()})

    def weights(self) -> State:
        """Return what was learned, by name."""
        return {name: tensor.detach().float().numpy().copy() for name, tensor in self.asker.learned().items()}

    def take(self, weights: State, pool: Ints | None = None) -> MetaLearner:
        """Take what :meth:`weights` returned, and the rows of items to compare with if they are given; return self."""
        if pool is not None:
            self.pool = torch.from_numpy(np.array(pool))
        for name, tensor in self.asker.learned().items():
            tensor.copy_(torch.from_numpy(np.array(weights[name])))
        return self

    def stepping(self, rate: float, steps: int) -> MetaLearner:
        """Return a learner that shares what was learned and adapts by other steps."""
        other = copy.copy(self)
        other.settings = replace(self.settings, rate=rate, steps=steps)
        return other

    def _update(self, tasks: Tasks, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> None:
        """Move the start by one batch of tasks."""
        settings, batch = self.settings, _Batch.of(tasks)
        pools = self._pools(rng, settings.candidates, tasks)
        start = self.asker.learned()
        if settings.way == "reptile":
            ended = self._steps(replace(batch, support=batch.support + batch.query), pools)
            share = min(1.0, 100 * settings.learning_rate)
            with torch.no_grad():
                for name, tensor in ended.items():
                    start[name] += share * (tensor.mean(dim=0) - start[name])
            return
        optimiser.zero_grad()
        if settings.way == "plain":
            both = batch.support + batch.query
            self._losses(_spread(start, len(tasks)), batch, both, pools).mean().backward()
        else:
            ended = {name: tensor.requires_grad_(True) for name, tensor in self._steps(batch, pools).items()}
            self._losses(ended, batch, batch.query, pools).mean().backward()
            for name, tensor in ended.items():
                start[name].grad = None if tensor.grad is None else tensor.grad.sum(dim=0)
        optimiser.step()

    def _steps(self, batch: _Batch, pools: Tensor) -> Weights:
        """Return the weights of each task after the steps on its support."""
        adapted = _spread(self._fast(), len(pools), copied=True)
        slope = vmap(grad(self._loss))
        for _ in range(self.settings.steps):
            slopes = slope(adapted, batch.events, batch.nexts, batch.support, pools)
            adapted = {name: tensor - self.settings.rate * slopes[name] for name, tensor in adapted.items()}
        return {name: tensor.detach() for name, tensor in adapted.items()}

    def _fast(self) -> Weights:
        """Return the weights that are adapted to a task."""
        return self.asker.learned(head=self.settings.way == "anil")

    def _losses(self, weights: Weights, batch: _Batch, counts: Tensor, pools: Tensor) -> Tensor:
        """Return the loss of each task, (K,), given weights with a first axis of tasks."""
        losses: Tensor = vmap(self._loss)(weights, batch.events, batch.nexts, counts, pools)
        return losses

    def _ask(self, weights: Weights, events: Tensor) -> Tensor:
        asked: Tensor = functional_call(self.asker, weights, (events, self.table))
        return asked

    def _loss(self, weights: Weights, events: Tensor, nexts: Tensor, counts: Tensor, pool: Tensor) -> Tensor:
        """Return the mean cross-entropy of one task's next items against its pool, a scalar."""
        asked = self._ask(weights, events)
        own = (asked * self.table[nexts]).sum(-1, keepdim=True)
        others = asked @ self.table[pool].T
        others = torch.where(pool == nexts[..., None], -torch.inf, others)
        losses = torch.logsumexp(torch.cat([own, others], dim=-1), dim=-1) - own.squeeze(-1)
        return (losses * counts).sum() / counts.sum().clamp(min=1.0)

    def _pools(self, rng: np.random.Generator, size: int, tasks: Tasks | None = None) -> Tensor:
        """Return items to compare with: one row for each task of its domain, or one row (C,) of the target."""
        lists = (self.target,) if tasks is None else tasks.pools
        rows = [np.sort(rng.choice(items, min(size, items.size), replace=False)) for items in lists]
        if tasks is None:
            return torch.from_numpy(rows[0].astype(np.int64))
        width = min(len(row) for row in rows)
        every = np.stack([row[np.linspace(0, len(row) - 1, width).astype(np.int64)] for row in rows])
        return torch.from_numpy(every[tasks.domain].astype(np.int64))

    def _serving(self, histories: Histories) -> tuple[_Batch, Tensor]:
        """Return the tasks of people as they are served, and what they are compared with."""
        tasks = serving_tasks(histories, self.target, self.settings.shape, dated=self.dated)
        return _Batch.of(tasks), self.pool.expand(len(histories), -1)


@dataclass(frozen=True)
class _Batch:
    """Tasks as tensors: events (K, 3, M, L), nexts, support and query (K, M, L), last (K,)."""

    events: Tensor
    nexts: Tensor
    support: Tensor
    query: Tensor
    last: Tensor

    @classmethod
    def of(cls, tasks: Tasks) -> _Batch:
        events: Ints = np.ascontiguousarray(tasks.events.transpose(1, 0, 2, 3))
        parts = (tasks.nexts, tasks.support, tasks.query)
        nexts, support, query = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        return cls(torch.from_numpy(events), nexts, support, query, torch.from_numpy(tasks.last[:, 0]))


def _spread(weights: Weights, tasks: int, *, copied: bool = False) -> Weights:
    """Return the same weights for each task: with a first axis of tasks."""
    found = {name: tensor.expand(tasks, *tensor.shape) for name, tensor in weights.items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()} if copied else found
