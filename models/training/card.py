"""A trained network's card: what it was trained on, how often it is right, and where it fails."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.config import DeepViTConfig
from models.training.recipe import Recipe

_BINS = 15  # of confidence
_CONFUSIONS = 12  # that are listed


def write(
    name: str,
    config: DeepViTConfig,
    recipe: Recipe,
    history: Sequence[dict[str, Any]],
    training_pictures: int,
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    sides: Tensor,
    small_below: int,
) -> str:
    """Markdown. `logits` [m, classes], `labels` [m] and shorter `sides` [m] are of the test set."""
    probabilities = logits.softmax(dim=1)
    right = logits.argmax(dim=1) == labels
    small = sides < small_below
    last = history[-1]
    kind = (
        f"re-attending in {len(config.reatten_blocks)} blocks" if config.reatten_blocks else "plain"
    )
    lines = [
        f"# {name}",
        "",
        f"{config.depth} blocks of width {config.embed_dim}, {config.num_heads} heads, {kind}; "
        f"{config.img_size} px, patch {config.patch_size}. Trained for {len(history)} epochs on "
        f"{training_pictures} pictures of {len(classes)} classes, seed {recipe.seed}.",
        "",
        "| test pictures | number | right |",
        "|---|---|---|",
        _row("all", right),
        _row(f"shorter side of {small_below} px or more", right[~small]),
        _row(f"smaller than {small_below} px", right[small]),
        "",
        f"Among the first five answers: {last['test_top5']:.2%}. Expected calibration error with "
        f"{_BINS} bins of confidence: {calibration_error(probabilities, right):.3f}.",
        "",
        "## Attention",
        "",
        *_attention(last),
        "",
        "## By class",
        "",
        "| class | pictures | right |",
        "|---|---|---|",
        *(_row(name, right[labels == index]) for index, name in enumerate(classes)),
        "",
        "## Most frequent confusions",
        "",
        *_confusions(logits.argmax(dim=1), labels, classes),
        "",
        "## Recipe",
        "",
        *(f"- `{key}`: {value}" for key, value in recipe.model_dump().items()),
    ]
    return "\n".join(lines) + "\n"


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
