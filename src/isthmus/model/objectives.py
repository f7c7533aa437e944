"""What a language model is trained for: words that are hidden, words that follow, classes, and pairs that belong."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from isthmus.model.losses import catalogue_softmax

#: Label of a place or a text that does not count.
IGNORED: Final = -100
OBJECTIVES: Final = ("mlm", "clm", "classify", "contrastive")


class WordHead(nn.Module):  # type: ignore[misc]
    """States to the space of the input embeddings, as BERT's head does: linear, GELU, norm; and a bias for each word.

    Parameters
    ----------
    width, embedding, words : int
        Length of a state and of an input embedding; words of the vocabulary.
    """

    def __init__(self, width: int, embedding: int, words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, embedding)
        self.norm = nn.LayerNorm(embedding)
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, states_Pd: Tensor) -> Tensor:
        """Return (P, embedding)."""
        return self.norm(nn.functional.gelu(self.dense(states_Pd)))


def words_loss(states_Pd: Tensor, table_Vd: Tensor, targets_P: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Return the mean of ``-log softmax(table @ state + bias)[target]`` over the places whose target counts.

    Masked words: Devlin et al., BERT, NAACL 2019, section 3.1; following words: Radford et al., 2018, equation 1.
    Places with target -100 are left out before the product; without any other the loss is 0.

    Parameters
    ----------
    states_Pd, table_Vd : Tensors
        States, and the input embeddings that the output is tied to.
    targets_P : int64 Tensor
        Words, or -100.
    bias_V : Tensor, optional
        Bias of each word.
    """
    counts = targets_P != IGNORED
    if not bool(counts.any()):
        return states_Pd.sum() * 0.0
    device = states_Pd.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        states_Pd, table_Vd = states_Pd.to(kind), table_Vd.to(kind)
    return catalogue_softmax(states_Pd[counts], table_Vd, targets_P[counts], bias=bias_V)


def following(ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Return the word that follows each place of texts padded on the right, (B, L) int64; -100 where there is none.

    Examples
    --------
    >>> following(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])).tolist()
    [[6, 7, -100], [9, -100, -100]]
    """
    after = torch.full_like(ids_BL, IGNORED)
    after[:, :-1] = ids_BL[:, 1:].masked_fill(mask_BL[:, 1:] == 0, IGNORED)
    return after


def class_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Return the mean cross-entropy of the texts with a label; -100 is none, and without any the loss is 0."""
    total = nn.functional.cross_entropy(logits_BC.float(), labels_B, ignore_index=IGNORED, reduction="sum")
    return total / (labels_B != IGNORED).sum().clamp(min=1)


def pair_loss(left_BD: Tensor, right_CD: Tensor, temperature: float, ignored_BC: Tensor | None = None) -> Tensor:
    """Return how well each left text finds its right one, and the other way: InfoNCE with in-batch negatives.

    With ``s = left @ right.T / temperature``, the mean of ``-log softmax(s[b])[b]`` over rows, and of the same over the
    first B columns, halved (van den Oord et al. 2018, equation 4; both ways as in Radford et al., CLIP, ICML 2021).

    Parameters
    ----------
    left_BD, right_CD : Tensors
        Rows of length 1; right row ``b`` belongs to left row ``b``; rows from B on are further negatives.
    temperature : float
        Smaller is sharper.
    ignored_BC : bool Tensor, optional
        Pairs that must not count as negatives because they may belong together; pairs ``(b, b)`` always count.
    """
    with torch.autocast(left_BD.device.type, enabled=False):
        scores = left_BD.float() @ right_CD.float().T / temperature
        B = scores.shape[0]
        right_answers = torch.arange(B, device=scores.device)
        if ignored_BC is not None:
            own = torch.zeros_like(ignored_BC)
            own[right_answers, right_answers] = True
            scores = scores.masked_fill(ignored_BC & ~own, float("-inf"))
        there, back = (
            nn.functional.cross_entropy(scores, right_answers),
            nn.functional.cross_entropy(scores[:, :B].T, right_answers),
        )
        return (there + back) / 2
