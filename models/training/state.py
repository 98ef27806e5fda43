"""What a run must keep to go on after an interruption: written whole or not at all."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.deepvit import DeepViT
from models.training.recipe import Recipe

_FIRST_LR = 1e-3  # of the peak, at the first step


@dataclass
class State:
    network: DeepViT
    average: AveragedModel
    optimizer: AdamW
    schedule: LRScheduler
    history: list[dict[str, Any]] = field(default_factory=list)  # metrics of finished epochs

    @classmethod
    def start(cls, network: DeepViT, recipe: Recipe, steps_per_epoch: int) -> "State":
        optimizer = AdamW(
            [
                {"params": decayed, "weight_decay": rate}
                for rate, decayed in _by_decay(network, recipe.weight_decay).items()
            ],
            lr=recipe.lr,
            fused=True,
        )
        average = AveragedModel(network, multi_avg_fn=partial(_average, recipe.ema_decay))
        return cls(network, average, optimizer, _schedule(optimizer, recipe, steps_per_epoch))

    @property
    def epoch(self) -> int:
        """The epoch that comes next."""
        return len(self.history)

    def save(self, path: Path, run: dict[str, Any]) -> None:
        """`run` tells runs apart: what goes on must be what was begun."""
        partial = path.with_suffix(".partial")
        parts = ("network", "average", "optimizer", "schedule")
        states = {part: getattr(self, part).state_dict() for part in parts}
        torch.save(states | {"history": self.history, "run": run}, partial)
        partial.replace(path)

    def load(self, path: Path, run: dict[str, Any]) -> None:
        """Raises `ValueError` where the file is of another run."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["run"] != run:
            changed = [key for key in run if saved["run"].get(key) != run[key]]
            raise ValueError(f"{path} is of another run: it differs in {', '.join(changed)}")
        for part in ("network", "average", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(saved[part])
        self.history = saved["history"]


def _average(
    decay: float, averages: list[Tensor], values: list[Tensor], count: int | Tensor
) -> None:
    """Exponential moving averages, in place, after `count` steps.

    The first steps weigh more, so that a short run does not end near where it began.
    """
    rising = (1 + int(count)) / (10 + int(count))
    get_ema_multi_avg_fn(min(decay, rising))(averages, values, count)


def _by_decay(network: nn.Module, weight_decay: float) -> dict[float, list[nn.Parameter]]:
    """Parameters by their weight decay: biases, norms, positions and tokens have none."""
    groups: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
    for name, parameter in network.named_parameters():
        whole = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        groups[weight_decay if whole else 0.0].append(parameter)
    return groups


def _schedule(optimizer: AdamW, recipe: Recipe, steps_per_epoch: int) -> LRScheduler:
    """Linear warm-up, then half a cosine down to the least rate."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)
    cosine = CosineAnnealingLR(optimizer, total - warmup, recipe.min_lr)
    if not warmup:
        return cosine
    rise = LinearLR(optimizer, _FIRST_LR, 1.0, warmup)
    return SequentialLR(optimizer, [rise, cosine], [warmup])
