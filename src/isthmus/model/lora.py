"""Low-rank updates of the linear maps of a model, LoRA and AdaLoRA, through ``peft``.

What is updated: every linear map of every Transformer block, and the map from text vectors to item vectors of a
sequence model. Dettmers et al. ("QLoRA", NeurIPS 2023, section 4) found that all of them are needed to match training
everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from isthmus.errors import InputError
from isthmus.model.inserts import blocks_of, linears

if TYPE_CHECKING:
    from peft import AdaLoraModel
    from transformers.utils import ModelOutput

#: Name of our update within peft.
TASK: Final = "task"
#: Weight of the orthogonality of AdaLoRA's factors (Zhang et al., ICLR 2023, equation 4; peft's default is 0.5).
ORTHOGONAL: Final = 0.1
#: AdaLoRA starts with this many times the rank that it ends with on average (section 4 of the paper).
START: Final = 1.5
#: Shares of the steps before ranks fall, and after they have fallen.
FIRST, LAST = 0.1, 0.3


def add_lora(model: PreTrainedModel, rank: int, alpha: float, dropout: float) -> None:
    """Add ``alpha / rank * B A`` to each map, ``B`` zero at the start (Hu et al., LoRA, ICLR 2022, equation 3).

    All else is frozen.

    Raises
    ------
    InputError
        The package peft is missing.
    """
    _require_peft()
    from peft import LoraConfig, LoraModel

    names, by_column = _targets(model)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, fan_in_fan_out=by_column)
    LoraModel(model, config, TASK)


def add_adalora(model: PreTrainedModel, rank: int, alpha: float, dropout: float) -> None:
    """Add ``P diag(e) Q`` to each map, ``e`` zero at the start, whose ranks a budget of ``rank`` a map is shared by.

    Training through :func:`isthmus.train.loop.train` prunes the least important ranks after each update and keeps
    ``P`` and ``Q`` near orthogonal. All else is frozen. Source: Zhang et al., "Adaptive Budget Allocation for
    Parameter-Efficient Fine-Tuning", ICLR 2023.

    Raises
    ------
    InputError
        The package peft is missing.
    """
    _require_peft()
    from peft import AdaLoraConfig, AdaLoraModel

    names, by_column = _targets(model)
    config = AdaLoraConfig(
        target_r=rank,
        init_r=max(rank + 1, round(START * rank)),
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        fan_in_fan_out=by_column,
        total_step=1 << 30,
    )
    budget = RankBudget(AdaLoraModel(model, config, TASK))
    model.after_update = budget.after_update
    model.training_state = budget.state
    model.load_training_state = budget.load
    model.register_forward_hook(_orthogonal)


def _require_peft() -> None:
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise InputError("lora and adalora need the package peft", fix="pip install 'isthmus[transfer]'")


def _targets(model: PreTrainedModel) -> tuple[list[str], bool]:
    """Return the names of the maps to update, and whether their weights stand transposed (GPT-2)."""
    wanted: dict[nn.Module, None] = {}
    for block in blocks_of(model):
        wanted.update(dict.fromkeys(linears(block).values()))
    adaptor = getattr(model, "adaptor", None)
    if adaptor is not None:
        wanted[adaptor.project] = None
    names = [name for name, module in model.named_modules() if module in wanted]
    return names, any(isinstance(module, Conv1D) for module in wanted)


class RankBudget:
    """What AdaLoRA does after each update: it keeps score of every rank and prunes to a falling budget.

    Parameters
    ----------
    tuner : AdaLoraModel
        Holds the model.
    """

    def __init__(self, tuner: AdaLoraModel) -> None:
        self.tuner = tuner

    def after_update(self, step: int, steps: int) -> None:
        """Score and prune after update ``step`` of ``steps``, while gradients are there."""
        config = self.tuner.peft_config[TASK]
        first, last = int(FIRST * steps), int(LAST * steps)
        if steps - last < first + 2:
            return  # too few steps to tell which rank matters: all stay
        config.total_step, config.tinit, config.tfinal = steps, first, last
        config.deltaT = max(1, steps // 100)
        self.tuner.rankallocator.set_total_step(steps)
        self.tuner.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """Return the scores of all weights and which ranks are left, for checkpoints."""
        allocator = self.tuner.rankallocator
        found = {}
        for name, weight in self._factors().items():
            for kind, table in (("mean", allocator.exp_avg_ipt), ("spread", allocator.exp_avg_unc)):
                found[f"{kind}:{name}"] = table.get(name, torch.zeros_like(weight)).detach()
        pattern = self.tuner.peft_config[TASK].rank_pattern or {}
        for name, weight in self._factors().items():
            if "lora_E" in name:
                left = pattern.get(name, [True] * weight.shape[0])
                found[f"left:{name}"] = torch.tensor(left, dtype=torch.uint8)
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        allocator, pattern = self.tuner.rankallocator, {}
        for key, tensor in state.items():
            kind, _, name = key.partition(":")
            if kind == "left":
                pattern[name] = tensor.bool().tolist()
                continue
            weight = self._factors()[name]
            table = allocator.exp_avg_ipt if kind == "mean" else allocator.exp_avg_unc
            table[name] = tensor.to(weight.device, weight.dtype, copy=True)
            allocator.ipt.setdefault(name, torch.zeros_like(weight))
        self.tuner.peft_config[TASK].rank_pattern = pattern or None

    def _factors(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.tuner.model.named_parameters() if "lora_" in name}


def _orthogonal(model: nn.Module, _inputs: object, output: ModelOutput) -> ModelOutput:
    """Add to the loss how far the factors are from orthogonal, while training."""
    if model.training and torch.is_grad_enabled() and output.loss is not None:
        output.loss = output.loss + ORTHOGONAL * orthogonality(model)
    return output


def orthogonality(model: nn.Module) -> Tensor:
    """Return the mean of ``|P' P - I|`` and ``|Q Q' - I|`` (Frobenius) over all factors, a scalar."""
    terms = []
    for name, weight in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = weight @ weight.T if "lora_A" in name else weight.T @ weight
            terms.append((product - torch.eye(product.shape[0], device=product.device)).norm())
    return torch.stack(terms).mean()


def is_low_rank(model: PreTrainedModel) -> bool:
    """Return whether updates were added and not merged."""
    return hasattr(model, "peft_config")


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Add the low-rank updates to the weights, so that the model is a plain one again; return it.

    Outputs stay the same up to rounding. A model without updates is left as it is.
    """
    if not is_low_rank(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config
    for hook in ("after_update", "training_state", "load_training_state"):
        model.__dict__.pop(hook, None)
    for key, hook in list(model._forward_hooks.items()):
        if hook is _orthogonal:
            del model._forward_hooks[key]
    return model
