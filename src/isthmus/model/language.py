"""The language carrier: one language model reads items and what people did, and both become vectors to compare.

    item    = model(text of the item)
    person  = model("viewed A on shop, then bought B on radio.")
    score   = cosine of the two

Any encoder (BERT, MiniLM …) or decoder (GPT-2, Llama …) of Hugging Face can be the backbone. What it may be trained
for stands in :mod:`isthmus.model.objectives`; a batch can mix any of it with weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from isthmus.encode.text import quiet
from isthmus.errors import ArtefactError, InputError
from isthmus.files import storage_errors
from isthmus.model.inserts import insert, read_with_prefix
from isthmus.model.language_config import FORMAT, INPUTS, LanguageConfig, Pooling, check_objectives
from isthmus.model.language_files import (
    CARD,
    card_text,
    check_folder,
    find_base,
    load_backbone,
    load_tokenizer,
)
from isthmus.model.objectives import WordHead, class_loss, following, pair_loss, words_loss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: One objective's share of a batch: its name, its weight, and its tensors.
Part: TypeAlias = Mapping[str, Tensor | str | float]


@dataclass
class LanguageOutput(ModelOutput):  # type: ignore[misc]
    """Loss, a scalar; and the loss of each part of the batch before weighting, (parts,)."""

    loss: Tensor | None = None
    parts: Tensor | None = None


class LanguageModel(PreTrainedModel):  # type: ignore[misc]
    """One backbone that reads items and people alike, with a head for each objective that needs one.

    Get one from :meth:`from_encoder`, from :meth:`from_pretrained`, or with random weights from a configuration. On a
    CPU it trains with plain attention and reads with the fused kind: the backward pass of the latter is slow there.

    Parameters
    ----------
    config : LanguageConfig
        Backbone and names.

    Raises
    ------
    InputError
        No backbone, one that the model cannot use, or an objective that does not fit it.
    """

    config_class = LanguageConfig
    base_model_prefix = "language"
    supports_gradient_checkpointing = True

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        if config.backbone is None or config.backbone.is_encoder_decoder:
            raise InputError("needs an encoder or a decoder as its backbone", where="language model")
        config.backbone.use_cache = False
        self.backbone = AutoModel.from_config(config.backbone)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None
        self.words = nn.ModuleDict()
        self.classes = nn.ModuleDict()
        self._add_heads()
        #: Turns texts into ids; kept beside the weights.
        self.tokenizer: PreTrainedTokenizerBase | None = None
        #: What strategies of transfer may put in: a map of the pooled vector, and keys and values before all others.
        self.head: nn.Module | None = None
        self.prefix: Tensor | None = None
        self.post_init()
        insert(self, config.strategy)

    @classmethod
    def from_encoder(cls, name_or_path: str | None = None, pooling: Pooling | None = None) -> LanguageModel:
        """Return a model that starts from a pre-trained encoder or decoder, in float32, with its tokeniser.

        Parameters
        ----------
        name_or_path : str, optional
            Folder, or name on the Hugging Face hub; default the bundled all-MiniLM-L6-v2.
        pooling : {"mean", "last", "cls"}, optional
            Default: what the folder says, else the last token for decoders and the mean for encoders.

        Raises
        ------
        NotFoundError
            No such model.
        ArtefactError
            The folder is damaged, unsafe, without a tokeniser, or has parts that cannot be trained here.
        """
        base = find_base(name_or_path)
        tokenizer, backbone = load_tokenizer(base.folder), load_backbone(base.folder)
        if tokenizer is None:
            raise ArtefactError("holds no tokeniser", where=base.folder, fix="save the tokeniser beside the weights")
        about: dict[str, str | list[str]] = {"base": base.name, "licence": base.licence}
        config = LanguageConfig(backbone=backbone.config, pooling=pooling or base.pooling, about=about)
        longest = min(int(getattr(backbone.config, "max_position_embeddings", 512)), int(tokenizer.model_max_length))
        config.max_tokens_item = min(config.max_tokens_item, longest)
        config.max_tokens_person = min(config.max_tokens_person, longest)
        model: LanguageModel = cls(config)
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        model.backbone, model.tokenizer = backbone, tokenizer
        model.eval()
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LanguageModel:
        """Return the model that :meth:`save_pretrained` wrote, with its tokeniser if it had one.

        Raises
        ------
        ArtefactError
            No such model, of another format version, or damaged.
        """
        folder = Path(folder)
        check_folder(folder, cls.config_class.model_type, FORMAT)
        with quiet():
            try:
                model: LanguageModel
                model, loaded = super().from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            except Exception as error:  # a damaged file surfaces as an error of any of three libraries
                raise ArtefactError(f"is damaged: {error}", where=folder, fix="copy or train it again") from error
        lost = sorted({*loaded["missing_keys"], *loaded["unexpected_keys"]})
        if lost:
            raise ArtefactError(f"its weights do not fit its configuration ({lost[0]})", where=folder)
        model.tokenizer = load_tokenizer(folder)
        model.eval()
        return model

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write weights (safetensors), configuration (JSON), tokeniser and model card into a folder."""
        folder = Path(save_directory)
        with quiet(), storage_errors(folder):
            super().save_pretrained(folder, is_main_process=is_main_process, state_dict=state_dict)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(folder)
            said = self.config
            card = card_text(said.about, said.objectives, self.dim, said.pooling)
            (folder / CARD).write_text(card, encoding="utf-8")

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        return int(self.config.backbone.hidden_size)

    def prepare(self, objectives: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None) -> LanguageModel:
        """Make sure there is a head for each objective, and each field of ``labels``; return self.

        A head that exists is kept; a field with other class names gets a new one.

        Raises
        ------
        InputError
            An unknown objective, masked words for a decoder, following words for an encoder, classes without labels.
        """
        named = {field: list(names) for field, names in (labels or {}).items()}
        check_objectives(objectives, {**self.config.labels, **named}, self.config.backbone)
        for field, names in named.items():
            if self.config.labels.get(field) != names and field in self.classes:
                del self.classes[field]
        self.config.objectives = sorted({*self.config.objectives, *objectives})
        self.config.labels = {**self.config.labels, **named}
        self._add_heads()
        return self

    def _add_heads(self) -> None:
        """Make the heads that are missing."""
        table = self.get_input_embeddings().weight
        words, width = table.shape
        made: list[nn.Module] = []
        check_objectives(self.config.objectives, self.config.labels, self.config.backbone)
        if "mlm" in self.config.objectives and "mlm" not in self.words:
            self.words["mlm"] = WordHead(self.dim, width, words)
            made.append(self.words["mlm"])
        if "clm" in self.config.objectives and "clm" not in self.words and width != self.dim:
            self.words["clm"] = nn.Linear(self.dim, width, bias=False)
            made.append(self.words["clm"])
        for field in self.config.labels.keys() - self.classes.keys():
            self.classes[field] = nn.Linear(self.dim, len(self.config.labels[field]))
            made.append(self.classes[field])
        for head in made:
            head.to(table.device, table.dtype).apply(self._init_weights)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one vector of length 1 a text, (B, D) float32.

        Parameters
        ----------
        input_ids, attention_mask : int64 Tensors (B, L)
            Tokens; padding may stand on either side.
        """
        ids, mask = right_padded(input_ids, attention_mask)
        pooled = pool(self._states(ids, mask), mask, self.config.pooling)
        return nn.functional.normalize(pooled if self.head is None else self.head(pooled), dim=-1)

    def _states(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the state of each token, (B, L, D)."""
        if self.prefix is not None:
            return read_with_prefix(self.backbone, self.prefix, ids_BL, mask_BL)
        return self.backbone(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state

    def forward(self, parts: Sequence[Part]) -> LanguageOutput:
        """Return the weighted sum of the losses of all parts.

        Parameters
        ----------
        parts : sequence of dict
            Each names its ``objective`` and perhaps a ``weight`` (1 if not), with the tensors it needs. All but
            contrastive: input_ids, attention_mask (B, L). mlm: padding on the right, and labels (B, L), -100 where
            not asked. classify: for each field a tensor of class numbers (B,), -100 for none. contrastive: left_ids,
            left_mask, right_ids, right_mask, perhaps ignored (B, C): :func:`isthmus.model.objectives.pair_loss`.
        """
        losses = torch.stack([self._loss(part) for part in parts])
        weights = losses.new_tensor([float(part.get("weight", 1.0)) for part in parts])
        return LanguageOutput(loss=(losses * weights).sum(), parts=losses.detach())

    def _loss(self, part: Part) -> Tensor:
        objective = str(part["objective"])
        if objective == "contrastive":
            left = self.embed(part["left_ids"], part["left_mask"])
            right = self.embed(part["right_ids"], part["right_mask"])
            return pair_loss(left, right, self.config.pair_temperature, part.get("ignored"))
        ids, mask = part["input_ids"], part["attention_mask"]
        if objective == "mlm":
            return self._masked(ids, mask, part["labels"])
        ids, mask = right_padded(ids, mask)
        states = self._states(ids, mask)
        if objective == "clm":
            states = self.words["clm"](states) if "clm" in self.words else states
            table = self.get_input_embeddings().weight
            return words_loss(states.flatten(0, 1), table, following(ids, mask).flatten())
        rows = pool(states, mask, self.config.pooling).to(states.dtype)
        fields = [field for field in part if field not in INPUTS]
        return torch.stack([class_loss(self.classes[field](rows), part[field]) for field in fields]).mean()

    def _masked(self, ids_BL: Tensor, mask_BL: Tensor, labels_BL: Tensor) -> Tensor:
        asked = labels_BL >= 0
        head = self.words["mlm"]
        states = head(self._states(ids_BL, mask_BL)[asked])
        return words_loss(states, self.get_input_embeddings().weight, labels_BL[asked], head.bias)

    def train(self, mode: bool = True) -> LanguageModel:
        """Switch between training and reading, and to the kind of attention that is faster for it; return self."""
        super().train(mode)
        kind = "eager" if mode and self.device.type == "cpu" else "sdpa"
        if kind != self.backbone.config._attn_implementation and getattr(self.backbone, "_supports_sdpa", False):
            self.backbone.set_attn_implementation(kind)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of the words."""
        return self.backbone.get_input_embeddings()

    def layers(self) -> list[nn.Module]:
        """Return the blocks of the backbone, bottom to top."""
        n = getattr(self.backbone.config, "num_hidden_layers", 0)
        lists = [module for module in self.backbone.modules() if isinstance(module, nn.ModuleList) and len(module)]
        exact = [module for module in lists if len(module) == n]
        return list((exact or sorted(lists, key=len, reverse=True))[0]) if lists else []

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter from the top: 0 for heads, 1 for the top block, most for embeddings."""
        return self._layers.get(name, 0)

    @cached_property
    def _layers(self) -> dict[str, int]:
        """The layer of each parameter that stands in a block or below all of them."""
        blocks = self.layers()
        inside = {id(weight): n for n, block in enumerate(reversed(blocks), 1) for weight in block.parameters()}
        found: dict[str, int] = {}
        below = True
        for name, weight in self.named_parameters():
            if id(weight) in inside:
                found[name], below = inside[id(weight)], False
            elif below and name.startswith("backbone."):
                found[name] = len(blocks) + 1
        return found

    def adversarial_parameters(self) -> list[nn.Parameter]:
        """Return what adversarial training disturbs: the embeddings of the words."""
        return [self.get_input_embeddings().weight]


def right_padded(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and mask with all padding on the right, so that places count from the first token of each text."""
    if bool((mask_BL[:, 1:] <= mask_BL[:, :-1]).all()):
        return ids_BL, mask_BL
    order = mask_BL.ne(0).int().argsort(dim=1, descending=True, stable=True)
    return ids_BL.gather(1, order), mask_BL.gather(1, order)


def pool(states_BLD: Tensor, mask_BL: Tensor, pooling: Pooling) -> Tensor:
    """Return one state a text, (B, D) float32: the mean, the last or the first of its tokens (padding on the right)."""
    states = states_BLD.float()
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = (mask_BL.sum(1) - 1).clamp(min=0)
        return states[torch.arange(states.shape[0], device=states.device), last]
    weights = mask_BL.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
