"""What a batch should answer: its labels, and what a teacher says about it.

Targets are [B, 2, classes]: the smoothed label, then the teacher's logits.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.training.photographs import Files, PhotographsError
from models.training.recipe import Recipe


def soft_labels(path: Path, files: Files) -> Tensor:
    """A teacher's logits for each picture, [n, classes], from an .npz file.

    It holds `names` [m], folder/file as in `Files`, `classes` [k] and `class_logits` [m, k]; more
    pictures and classes than are trained on do no harm. Raises `PhotographsError`.
    """
    try:
        with np.load(path) as arrays:
            names, classes, logits = (arrays[key] for key in ("names", "classes", "class_logits"))
    except (OSError, ValueError, KeyError) as exc:
        raise PhotographsError(f"{path} does not hold soft labels: {exc}") from exc
    rows = _indices(names, files.names, path)
    columns = _indices(classes, files.classes, path)
    return torch.from_numpy(logits[np.ix_(rows, columns)].astype(np.float32))


def _indices(known: np.ndarray, wanted: Sequence[str], path: Path) -> list[int]:
    index = {str(name): number for number, name in enumerate(known)}
    missing = [name for name in wanted if name not in index]
    if missing:
        raise PhotographsError(f"{path} knows nothing of {missing[0]} and {len(missing) - 1} more")
    return [index[name] for name in wanted]


def loss(logits: Tensor, labels: Tensor, teacher: Tensor | None, recipe: Recipe) -> Tensor:
    """Cross-entropy with labels [B, classes] and, for a share of it, with a teacher's answers.

    `teacher`: probabilities [B, classes] at the recipe's temperature T. Their gradient is scaled
    by T^2, which keeps its size (Hinton et al., "Distilling the Knowledge in a Neural Network").
    """
    hard = F.cross_entropy(logits, labels)
    if teacher is None:
        return hard
    T = recipe.distill_temperature
    return torch.lerp(hard, F.cross_entropy(logits / T, teacher) * T * T, recipe.distill)
