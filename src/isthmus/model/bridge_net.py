"""The network of a bridge: from what a source history is about to a map for this person alone.

about   = attention over the source items                  (Zhu et al., PTUPCDR, WSDM 2022, equations 2 and 3)
map     = two layers over ``about``, as a matrix           (equations 4 and 5)
adds      source state @ map to what the map for all says  (equation 6)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from isthmus.data.sequences import Histories
from isthmus.model.base import State
from isthmus.model.softmax import sampled_softmax
from isthmus.rng import generator
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    from isthmus.model.bridge import Bridge, Lesson

#: Hidden units, persons of a batch, items drawn to compare with, learning rate, weight decay.
HIDDEN: Final = 32
BATCH: Final = 256
DRAWN: Final = 512
RATE, DECAY = 3e-3, 1e-3
#: Items are drawn to compare with by their count to this power.
FAME: Final = 0.75
#: Share of the people that choose the epoch.
CHOOSING: Final = 0.1


class BridgeNet(nn.Module):  # type: ignore[misc]
    """Attention over item factors (N, D), and a map (D, d) for each person; the map is zero at the start."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width, self.dim = width, dim
        self.look = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1, bias=False))
        self.lower, self.upper = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width * dim)
        nn.init.zeros_(self.upper.weight)
        nn.init.zeros_(self.upper.bias)

    def forward(self, items_ED: Tensor, rows: Tensor, states_BD: Tensor) -> Tensor:
        """Return what each person's own map adds, (B, d).

        Parameters
        ----------
        items_ED : Tensor (E, D)
            Factors of the source item of each event.
        rows : int64 Tensor (E,)
            Person of each event.
        states_BD : Tensor (B, D)
            Source states.
        """
        force = self.look(items_ED).squeeze(1)
        force = (force - force.max()).exp() if force.numel() else force
        total = force.new_zeros(len(states_BD)).index_add(0, rows, force)
        share = force / total[rows].clamp(min=1e-9)
        about = items_ED.new_zeros(len(states_BD), self.width).index_add(0, rows, share[:, None] * items_ED)
        maps = self.upper(torch.relu(self.lower(about))).view(-1, self.width, self.dim)
        return torch.einsum("bd,bde->be", states_BD, maps)


def personal(bridge: Bridge, histories: Histories, states: Floats) -> Floats:
    """Return what the maps of their own add to the target states of people, (B, d).

    Parameters
    ----------
    bridge : Bridge
        With the weights of a network.
    histories : Histories
        ``B`` histories.
    states : float32 array (B, 2, d)
        Their source states.
    """
    net = BridgeNet(2 * bridge.targets.shape[1], bridge.targets.shape[1])
    net.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in bridge.net.items()})
    with torch.no_grad():
        said: Floats = net(*_shown(bridge, histories, states)).numpy()
    return said


def _shown(bridge: Bridge, histories: Histories, states: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of each source event's item, its person, and the states in one row."""
    factors = np.concatenate([table[histories.items] for table in bridge.sources], axis=1)
    source = factors.any(axis=1)
    return (
        torch.from_numpy(factors[source]),
        torch.from_numpy(histories.rows[source]),
        torch.from_numpy(np.ascontiguousarray(np.concatenate([states[:, 0], states[:, 1]], axis=1))),
    )


def learn_net(bridge: Bridge, lesson: Lesson, seed: int) -> State:
    """Return the weights of the network that tells the wanted items best, of the best epoch.

    The epoch is chosen by the loss on a tenth of the people of the lesson, who do not teach; epoch 0, in which the
    network says nothing, is one of them.
    """
    rng = generator(seed, "bridge", "net")
    order = rng.permutation(len(lesson.source))
    held = max(int(CHOOSING * order.size), 1)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(1 << 31)))
        learner = _Learner(bridge, lesson, rng)
        best, reached = learner.weights(), learner.loss(order[:held], rng=generator(seed, "bridge", "choose"))
        for _ in range(int(bridge.number("epochs"))):
            learner.epoch(rng.permutation(order[held:]))
            now = learner.loss(order[:held], rng=generator(seed, "bridge", "choose"))
            if now < reached:
                best, reached = learner.weights(), now
    return best


class _Learner:
    """A network while it learns."""

    def __init__(self, bridge: Bridge, lesson: Lesson, rng: np.random.Generator) -> None:
        self.bridge, self.lesson, self.rng = bridge, lesson, rng
        dim = bridge.targets.shape[1]
        self.net = BridgeNet(2 * dim, dim)
        states = bridge.source_states(lesson.source)
        self.states = states
        self.base = 0.5 * (states[:, 0] @ bridge.maps[0] + states[:, 1] @ bridge.maps[1])
        table = bridge.targets * np.sqrt(lesson.counts)[:, None]
        spread = float(np.std(self.base @ table.T[:, : 4 * DRAWN])) or 1.0
        self.table = torch.from_numpy(np.concatenate([table / spread, np.log(lesson.counts)[:, None]], axis=1))
        # how loud the bridge and the counts speak is learned too, and not kept: it does not change who is where
        self.loud = nn.Parameter(torch.tensor([0.3, 1.0]))
        chance = lesson.counts.astype(np.float64) ** FAME
        self.chance = chance / chance.sum()
        self.optimiser = torch.optim.AdamW([*self.net.parameters(), self.loud], lr=RATE, weight_decay=DECAY)

    def epoch(self, order: Ints) -> None:
        """Learn from some people once."""
        for start in range(0, order.size, BATCH):
            loss = self._loss(np.sort(order[start : start + BATCH]), self.rng)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def loss(self, people: Ints, rng: np.random.Generator) -> float:
        """Return the loss on some people."""
        with torch.no_grad():
            return float(self._loss(np.sort(people), rng))

    def weights(self) -> State:
        """Return a copy of the network's weights."""
        return {name: tensor.detach().clone().numpy() for name, tensor in self.net.state_dict().items()}

    def _loss(self, people: Ints, rng: np.random.Generator) -> Tensor:
        """Return the cross-entropy of the wanted items against items drawn by their counts."""
        added = self.net(*_shown(self.bridge, self.lesson.source.take(people), self.states[people]))
        placed = self.loud[0] * (torch.from_numpy(self.base[people]) + added)
        placed = torch.cat([placed, self.loud[1].expand(len(people), 1)], dim=1)
        wanted = sparse.coo_array(self.lesson.wanted[people])
        rows, items = (torch.from_numpy(axis.astype(np.int64)) for axis in (wanted.row, wanted.col))
        drawn = rng.choice(self.chance.size, size=min(DRAWN, 4 * self.chance.size), p=self.chance)
        log_q = torch.from_numpy(np.log(drawn.size * self.chance[drawn]).astype(np.float32))
        weights = torch.from_numpy(wanted.data.astype(np.float32))
        return sampled_softmax(placed[rows], self.table, items, torch.from_numpy(drawn), log_q, weights)
