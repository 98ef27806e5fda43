"""A trained network's card: what it was trained on, how often it is right, and where it fails."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.config import DeepViTConfig
from models.training.loop import Run

_BINS = 15  # of confidence
_CONFUSIONS = 12  # that are listed


@dataclass(frozen=True)
class Answered:
    """What a network answered on the test pictures."""

    logits: Tensor  # [m, classes]
    labels: Tensor  # [m]
    sides: Tensor  # [m], the shorter side of each picture, in pixels
    classes: Sequence[str]
    attention: dict[str, Any]  # as evaluation.collapse tells it

    @property
    def right(self) -> Tensor:
        return self.logits.argmax(dim=1) == self.labels

    @property
    def among_five(self) -> float:
        """Share of pictures whose class is among the first five answers."""
        first = self.logits.argsort(dim=1, descending=True)[:, :5]
        return (first == self.labels[:, None]).any(dim=1).float().mean().item()


def write(name: str, run: Run, pictures: int, answered: Answered, small_below: int) -> str:
    """Markdown, about a network that a run trained on so many pictures."""
    config, recipe, history = run.config, run.recipe, run.history
    labels, classes, right = answered.labels, answered.classes, answered.right
    small = answered.sides < small_below
    error = calibration_error(answered.logits.softmax(dim=1), right)
    lines = [
        f"# {name}",
        "",
        f"{config.depth} blocks of width {config.embed_dim}, {config.num_heads} heads, "
        f"{kind(config)}; {config.img_size.side} px, patch {config.patch_size.side}. "
        f"Trained for {len(history)} epochs on {pictures} pictures of {len(classes)} classes, "
        f"seed {recipe.seed}.",
        "",
        "| test pictures | number | right |",
        "|---|---|---|",
        _row("all", right),
        _row(f"shorter side of {small_below} px or more", right[~small]),
        _row(f"smaller than {small_below} px", right[small]),
        "",
        f"Among the first five answers: {answered.among_five:.2%}. Expected calibration error with "
        f"{_BINS} bins of confidence: {error:.3f}.",
        "",
        "## Attention",
        "",
        *_attention(answered.attention),
        "",
        "## By class",
        "",
        "| class | pictures | right |",
        "|---|---|---|",
        *(_row(name, right[labels == index]) for index, name in enumerate(classes)),
        "",
        "## Most frequent confusions",
        "",
        *_confusions(answered.logits.argmax(dim=1), labels, classes),
        "",
        "## Recipe",
        "",
        *(f"- `{key}`: {value}" for key, value in recipe.model_dump().items()),
    ]
    return "\n".join(lines) + "\n"


def kind(config: DeepViTConfig) -> str:
    """What a network does with its maps, in words."""
    kinds = []
    if config.reatten_blocks:
        kinds.append(f"Re-attention in {len(config.reatten_blocks)} blocks")
    if set(config.softmax_temperatures) - {1.0}:
        values = sorted({*config.softmax_temperatures})
        kinds.append("temperature " + ", ".join(f"{value:g}" for value in values))
    if config.attention_donor is not None:
        kinds.append(f"shared from block {config.attention_donor}")
    return ", ".join(kinds) or "plain"


def calibration_error(probabilities: Tensor, right: Tensor) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over bins of confidence.

    Probabilities [m, classes] and whether each answer is right [m]; weighted by a bin's pictures.
    """
    confidence = probabilities.max(dim=1).values
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    apart = torch.zeros(_BINS).index_add(0, bins, right.float() - confidence)
    return float(apart.abs().sum() / len(right))


def _row(name: str, right: Tensor) -> str:
    share = f"{right.float().mean().item():.1%}" if len(right) else "-"
    return f"| {name} | {len(right)} | {share} |"


def _attention(metrics: dict[str, Any]) -> Iterable[str]:
    for stage in ("softmax", "reattention"):
        if stage in metrics:
            found = metrics[stage]
            yield (
                f"- Stage `{stage}`: similar blocks {found['similar'] or 'none'}, collapsed blocks "
                f"{found['collapsed'] or 'none'}; cosine of neighbours by column "
                f"{min(found['column']):.2f} to {max(found['column']):.2f}, by row "
                f"{min(found['row']):.2f} to {max(found['row']):.2f}."
            )


def _confusions(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> Iterable[str]:
    pairs = Counter(
        (label, answer)
        for label, answer in zip(labels.tolist(), answers.tolist(), strict=True)
        if label != answer
    )
    for (label, answer), count in pairs.most_common(_CONFUSIONS):
        yield f"- {classes[label]} taken for {classes[answer]}: {count}"
