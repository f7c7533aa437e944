"""The sequence carrier: what a person did last, over all platforms, gives the next item. Reads top to bottom.

    item      = adaptor(text vector) [+ id embedding]
    event     = item + kind of event + platform + domain + time gap
    person    = causal Transformer over the events, at each place
    score     = person . item, softmax over the whole catalogue of the next item's domain

Without id embeddings the model is inductive: it reads items, domains and platforms that it never met. With them
(transductive) it remembers single items as well. Item vectors follow UniSRec (Hou et al., KDD 2022), the rest
SASRec (Kang and McAuley, ICDM 2018) with cross-entropy over the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from isthmus.data.sequences import Histories
from isthmus.model.base import Places
from isthmus.model.catalogue import GAPS, Batch, Catalogue, Events, shaped
from isthmus.model.inserts import insert
from isthmus.model.layers import Adaptor, Block, turning
from isthmus.model.losses import info_nce
from isthmus.model.softmax import unseen_sampled_softmax, unseen_softmax
from isthmus.types import EVENTS, Floats, Indices

UNKNOWN: Final = ""
#: Temperature of the contrast between two views of a person.
VIEW_TEMPERATURE: Final = 0.1


class SequenceConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes and names of a sequence model.

    Parameters
    ----------
    width : int
        Length of a text vector; 0 for a model of ids only.
    dim, layers, heads, experts : int
        Sizes.
    length : int
        Events of a history that are looked at, the newest.
    dropout, vector_dropout : float
        Inside the Transformer, and of the text vectors.
    id_dropout : float
        Share of the id embeddings that are dropped in a step, so that items without one are placed well by their text.
    domains, platforms : list of str
        Names with an embedding of their own; any other name has the embedding of the unknown.
    n_items : int
        Items with an id embedding; 0 for an inductive model.
    scale : float
        If above 0, scores are ``scale`` times the cosine; if 0, plain products.
    views : float
        Weight of the contrastive loss between two views, where batches hold views.
    shrink : float
        Of the whitening of the vectors that the model was trained on.
    encoder : str
        Fingerprint of the encoder whose vectors the model reads.
    strategy : dict
        Parts that a strategy of transfer put in (:mod:`isthmus.model.inserts`).
    """

    model_type = "isthmus-sequence"

    width: int = 384
    dim: int = 64
    layers: int = 2
    heads: int = 2
    experts: int = 4
    length: int = 50
    dropout: float = 0.2
    vector_dropout: float = 0.0
    id_dropout: float = 0.0
    domains: list[str] = field(default_factory=lambda: [UNKNOWN])
    platforms: list[str] = field(default_factory=lambda: [UNKNOWN])
    n_items: int = 0
    scale: float = 0.0
    views: float = 0.1
    shrink: float = 0.1
    encoder: str = ""
    strategy: dict[str, object] = field(default_factory=dict)


@dataclass
class SequenceOutput(ModelOutput):  # type: ignore[misc]
    """Loss, a scalar."""

    loss: Tensor | None = None


class SequenceModel(PreTrainedModel):  # type: ignore[misc]
    """A causal Transformer over events.

    Call :meth:`attend` with the items before anything else; then :meth:`items` gives their vectors, :meth:`persons`
    what stands at each event, and :meth:`forward` the loss.
    """

    config_class = SequenceConfig
    base_model_prefix = "sequence"
    supports_gradient_checkpointing = True

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.adaptor = Adaptor(config.width, dim, config.experts, config.vector_dropout) if config.width else None
        self.ids = nn.Embedding(config.n_items, dim) if config.n_items else None
        self.event = nn.Embedding(len(EVENTS), dim)
        self.platform = nn.Embedding(len(config.platforms), dim)
        self.domain = nn.Embedding(len(config.domains), dim)
        self.gap = nn.Embedding(GAPS + 1, dim)
        self.start = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(dim, config.heads, config.dropout) for _ in range(config.layers))
        self.end = nn.LayerNorm(dim)
        self.gradient_checkpointing = False
        #: What the model may look at; one at a time.
        self.catalogues: list[Catalogue] = []
        self.group = 0
        self.post_init()
        insert(self, config.strategy)

    @classmethod
    def seeded(cls, config: SequenceConfig, seed: int) -> SequenceModel:
        """Return a new model that depends on ``seed`` alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(config)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def begin_with(self, directions: Floats) -> SequenceModel:
        """Let the adaptor begin as a projection of the text vectors on ``directions`` (D, d); return self.

        Items of like texts then lie together before anything is learned, and a person is about where the last item
        lies: learning starts from content-based lists instead of from chance.
        """
        if self.adaptor is not None:
            d = self.config.dim
            start = torch.from_numpy(np.ascontiguousarray(directions.T)) * (self.config.width / d) ** 0.5
            self.adaptor.project.weight.add_(start.repeat(self.config.experts, 1))
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """Start small: normal with standard deviation 0.02."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def grown(self, places: Places, n_items: int) -> SequenceModel:
        """Return this model with room for more names, which start as the unknown, and for ``n_items`` ids."""
        config = SequenceConfig.from_dict(self.config.to_dict())
        config.domains = [*config.domains, *(name for name in places.domains if name not in config.domains)]
        config.platforms = [*config.platforms, *(name for name in places.platforms if name not in config.platforms)]
        config.n_items = n_items
        model = SequenceModel(config)
        mine = self.state_dict()
        for name in ("domain.weight", "platform.weight"):
            new = model.state_dict()[name].shape[0] - mine[name].shape[0]
            mine[name] = torch.cat([mine[name], mine[name][:1].expand(new, -1)])
        if n_items:
            mine["ids.weight"] = model.state_dict()["ids.weight"]
        model.load_state_dict({name: tensor for name, tensor in mine.items() if n_items or name != "ids.weight"})
        return model

    def attend(self, vectors: Floats | None, places: Places, known: Indices) -> SequenceModel:
        """Look at these items from now on, of which ``known`` (n_items,) have an id embedding; return self."""
        return self.attend_all([Catalogue(vectors, places, self.config, known)])

    def attend_all(self, catalogues: Sequence[Catalogue]) -> SequenceModel:
        """Look at several catalogues, one for each group of batches; return self."""
        self.catalogues, self.group = [part.to(self.device) for part in catalogues], 0
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The items that are looked at."""
        return self.catalogues[self.group]

    def items(self, rows: Tensor | None = None) -> Tensor:
        """Return the item vectors of some rows of the catalogue, all by default, (N, d)."""
        said: Tensor | None = None
        if self.adaptor is not None:
            vectors = self.catalogue.vectors
            said = self.adaptor(vectors if rows is None else vectors[rows])
        if self.ids is not None:
            place = self.catalogue.id_of if rows is None else self.catalogue.id_of[rows]
            own = torch.cat([self._kept_ids(), self.ids.weight.new_zeros(1, self.config.dim)])[place]
            said = own if said is None else said + own
        if self.config.scale:
            said = nn.functional.normalize(said, dim=-1)
        return said

    def _kept_ids(self) -> Tensor:
        """Return the id embeddings; while it learns, zeros for those that are dropped."""
        weight: Tensor = cast("nn.Embedding", self.ids).weight
        if not (self.training and self.config.id_dropout):
            return weight
        return weight * (torch.rand(len(weight), 1, device=weight.device) >= self.config.id_dropout)

    def persons(self, events: Events, table_Nd: Tensor) -> Tensor:
        """Return the state of each person after each event, (B, L, d); ``table_Nd`` has all item vectors."""
        where = events.items if events.rows is None else events.rows[events.items]
        places = self.domain(self.catalogue.domain[where]) + self.platform(self.catalogue.platform[where])
        x = self.start(table_Nd[events.items] + places + self.event(events.events) + self.gap(events.gaps))
        x = self.dropout(x)
        turn = turning(x.shape[1], self.config.dim // self.config.heads, x.device)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(block.__call__, x, turn)
            else:
                x = block(x, turn)
        x = self.end(x)
        return nn.functional.normalize(x, dim=-1) * self.config.scale if self.config.scale else x

    def forward(self, batch: Mapping[str, Tensor]) -> SequenceOutput:
        """Return the mean cross-entropy of the next items, each among the items of its own domain.

        Parameters
        ----------
        batch : dict of str to Tensor
            The fields of a :class:`~isthmus.model.catalogue.Batch`. Where it holds views, the contrast of these is
            added with the weight ``config.views``: what a person is should not depend on the view.
        """
        some = Batch(**batch)
        self.group = 0 if some.group is None else int(some.group)
        table = self.items(some.rows)
        states = self.persons(some.histories, table).flatten(0, 1)[some.places]
        if torch.is_autocast_enabled(states.device.type):
            kind = torch.get_autocast_dtype(states.device.type)
            states, table = states.to(kind), table.to(kind)
        total = sum(self._domain_loss(some, states, table, span) for span in some.spans.tolist())
        loss = total / some.weights.sum().clamp(min=1e-9)
        if some.viewed is not None:
            loss = loss + self.config.views * self._contrast(some.viewed, table, some.lasts)
        return SequenceOutput(loss=loss)

    def _domain_loss(self, batch: Batch, states: Tensor, table: Tensor, span: list[int]) -> Tensor:
        """Return the sum, by weight, of the losses of the next items of one domain; what was seen is no rival."""
        start, stop, domain, first, last = span
        said, targets, weights = states[start:stop], batch.targets[start:stop], batch.weights[start:stop]
        rows, items = batch.seen(start, stop)
        if batch.drawn is None or batch.log_q is None:
            place = self.catalogue.place
            shelf = table[self.catalogue.rows(domain)]
            loss = unseen_softmax(said, shelf, place[targets], weights, rows, place[items])
        else:
            sample = batch.drawn[first:last], batch.log_q[first:last]
            loss = unseen_sampled_softmax(said, table, targets, weights, sample, (rows, items))
        return loss * weights.sum()

    def _contrast(self, views: Events, table: Tensor, lasts: Tensor) -> Tensor:
        """Return InfoNCE of two views of the same persons among all others of the batch (Xie et al., ICDE 2022)."""
        states = self.persons(views, table)[torch.arange(lasts.numel(), device=table.device), lasts].float()
        first, second = nn.functional.normalize(states, dim=-1).chunk(2)
        return info_nce(first, second, temperature=VIEW_TEMPERATURE)

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter from the top: 0 for what belongs to a target, 1 for the top block."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return len(self.blocks) - int(rest.partition(".")[0])
        return 0 if part in ("ids", "domain", "platform", "end") else len(self.blocks) + 1

    def adversarial_parameters(self) -> list[nn.Parameter]:
        """Return what adversarial training disturbs: the embeddings."""
        return [part.weight for part in self.children() if isinstance(part, nn.Embedding)]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def whole(self, vectors: Floats | None, places: Places, known: Indices) -> Floats:
        """Return all item vectors, (N, d), and attend to the items; ``known``: those that the ids stand for."""
        self.eval().attend(vectors, places, known)
        rows = torch.arange(places.domain.size, device=self.device)
        found: Floats = torch.cat([self.items(some).float() for some in rows.split(4096)]).cpu().numpy()
        return found

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def states(self, table: Floats, histories: Histories, *, dated: bool = True) -> Floats:
        """Return what stands after the last event of each history, (B, d) float32."""
        some = histories.last(self.config.length)
        batch, last = shaped(some, dated)
        events = Events(*(torch.from_numpy(part).to(self.device) for part in batch))
        states = self.persons(events, torch.from_numpy(table).to(self.device))
        found: Floats = states[torch.arange(len(some)), torch.from_numpy(last)].float().cpu().numpy()
        return found
