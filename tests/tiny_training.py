"""A tiny model and its batches, for the tests of training; run as a script it trains in a folder, to be killed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from isthmus.train.loop import LoopSettings, train
from isthmus.train.weights import fingerprint, learned

WORDS = 12


class TinyConfig(PretrainedConfig):
    model_type = "isthmus-tiny"

    def __init__(self, dim: int = 8, **rest: object) -> None:
        self.dim = dim
        super().__init__(**rest)


class TinyModel(PreTrainedModel):
    """Learns which word follows which."""

    config_class = TinyConfig
    supports_gradient_checkpointing = True

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(WORDS, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(0.2)
        self.top = nn.Linear(config.dim, WORDS)
        self.post_init()

    def scores(self, x: Tensor) -> Tensor:
        return self.top(self.dropout(self.norm(self.embeddings(x))))

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        return ModelOutput(loss=nn.functional.cross_entropy(self.scores(x).float(), y))


class TinyBatches:
    def __init__(self, n: int = 10, seed: int = 0) -> None:
        self.n, self.seed = n, seed
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.n

    def batch(self, step: int) -> dict[str, Tensor]:
        self.asked.append(step)
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        x = torch.randint(WORDS, (8,), generator=generator)
        return {"x": x, "y": follows(x)}


def follows(x: Tensor) -> Tensor:
    return (x * 5 + 3) % WORDS


def tiny(seed: int = 0) -> TinyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyModel(TinyConfig())


def goodness(model: PreTrainedModel) -> float:
    """Return the mean log likelihood of the right word: changes with every weight."""
    x = torch.arange(WORDS, device=model.device)
    return -nn.functional.cross_entropy(model.scores(x), follows(x)).item()


SETTINGS = {"epochs": 4, "learning_rate": 0.02, "accumulation": 2, "average": 2, "save_every": 0.0, "seed": 3}


def main(folder: Path, pause: float) -> None:
    """Train slowly; print a line at each batch, and in the end what came of it."""

    class Slow(TinyBatches):
        def batch(self, step: int) -> dict[str, Tensor]:
            print(f"batch {step}", flush=True)
            time.sleep(pause)
            return super().batch(step)

    torch.set_num_threads(1)
    model = tiny()
    log = train(model, Slow(), LoopSettings(**SETTINGS), folder=folder, watch=goodness)  # type: ignore[arg-type]
    print(json.dumps({"watched": log.watched, "losses": log.losses, "weights": fingerprint(learned(model))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
