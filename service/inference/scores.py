"""Logits to the classes that are answered, with their probabilities."""

import numpy as np

from models.arrays import Float32Array
from models.config import Scores

_DIGITS = 6  # of a probability


def top_classes(logits: Float32Array, top_k: int, scores: Scores) -> tuple[list[int], list[float]]:
    """Indices of the `top_k` most probable of all classes [classes], and how probable they are."""
    best = (-logits).argsort(kind="stable")[:top_k]
    if scores == "sigmoid":  # each class by itself; the exponential of a large logit is infinite
        likely = 0.5 + 0.5 * np.tanh(logits[best].astype(np.float64) / 2)
    else:
        shifted = np.exp(logits.astype(np.float64) - logits[best[0]])
        likely = shifted[best] / shifted.sum()
    return best.tolist(), [round(probability, _DIGITS) for probability in likely.tolist()]
