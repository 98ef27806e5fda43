"""Random numbers that depend on a seed and a count alone, so that a step or an epoch repeats."""

import numpy as np
import torch
from torch import Tensor

_STEPS, _EPOCHS = range(2)  # keep the streams of steps apart from those of epochs


def order(seed: int, epoch: int, count: int) -> Tensor:
    """The order in which an epoch shows `count` pictures."""
    return torch.from_numpy(np.random.default_rng((seed, _EPOCHS, epoch)).permutation(count))


class Draws:
    """All draws of one step."""

    def __init__(self, seed: int, step: int, device: torch.device) -> None:
        self.host = np.random.default_rng((seed, _STEPS, step))
        self.generator = torch.Generator(device)
        self.generator.manual_seed(int(self.host.integers(2**63)))

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """[count], on the device."""
        values = torch.empty(count, device=self.generator.device)
        return values.uniform_(low, high, generator=self.generator)
