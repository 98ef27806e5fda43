"""The training loop: epochs of steps, an evaluation after each, a state that outlives a kill."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepvit import DeepViT
from models.normalize import normalize
from models.preprocess import Preprocessing
from models.training.augment import Augment, mixed
from models.training.draws import Draws, order
from models.training.evaluation import evaluate
from models.training.forward import forward, stochastic_depth
from models.training.photographs import Photographs
from models.training.progress import Progress
from models.training.recipe import Recipe
from models.training.sizes import resized, shrunk, shrunk_photographs, sides
from models.training.state import State
from models.training.targets import loss

_SETTLING_BATCHES = 16
_MOMENTUM = 0.1  # of norms in training

Teacher = Callable[[Tensor], Tensor]  # images [B, 3, S, S] of values in 0..1 to logits [B, classes]


@dataclass(frozen=True)
class Data:
    """What is learnt from, and what is measured on."""

    training: Photographs
    soft: Tensor | None  # [n, classes]: a teacher's logits for each training picture
    test: Tensor  # [m, 3, S, S], uint8, as served
    test_labels: Tensor  # [m]
    classes: int
    identity: str  # tells these data apart from others


class Run:
    """One training run, kept in a folder: `state.pt` and `metrics.jsonl`."""

    def __init__(
        self,
        begin: DeepViT,
        rule: Preprocessing,
        recipe: Recipe,
        data: Data,
        folder: Path,
        device: torch.device,
        teacher: Teacher | None = None,
        compiled: bool = False,
    ) -> None:
        """Begins with this network, or goes on after the last epoch that the folder has.

        Raises `ValueError`.
        """
        self.config, self.rule, self.recipe = begin.config, rule, recipe
        self.data = data
        self._folder, self._device, self._teacher = folder, device, teacher
        self._sides = sides(recipe, self.config)
        self._forward = torch.compile(forward, dynamic=False) if compiled else forward
        self._identity = {
            "config": self.config.model_dump(mode="json"),
            "preprocessing": rule.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "data": data.identity,
        }
        network = begin.to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._state = State.start(network, recipe, self.steps_per_epoch)
        if (path := self._folder / "state.pt").exists():
            self._state.load(path, self._identity)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.training) // self.recipe.batch_size

    @property
    def _shown(self) -> int:
        """Pictures of an epoch."""
        return self.steps_per_epoch * self.recipe.batch_size

    @property
    def epoch(self) -> int:
        """The epoch that comes next."""
        return self._state.epoch

    @property
    def history(self) -> list[dict[str, Any]]:
        """Metrics of each finished epoch."""
        return self._state.history

    def _average(self) -> DeepViT:
        network = self._state.average.module
        assert isinstance(network, DeepViT)
        return network

    def train(self, progress: Progress) -> None:
        """All epochs that are left."""
        for size, epochs in groupby(self._sides[self.epoch :]):
            photographs = shrunk_photographs(self.data.training, size / self.rule.size.side)
            test = shrunk(self.data.test, size)
            for _ in epochs:
                started = time.perf_counter()
                learnt = self._one_epoch(progress, photographs, size)
                seconds = time.perf_counter() - started
                found = evaluate(
                    self._settled(photographs, size),
                    test,
                    self.data.test_labels,
                    self.rule,
                    self.recipe,
                )
                speed = {
                    "images_per_s": round(self._shown / seconds, 1),
                    "seconds": round(seconds, 1),
                }
                self._state.history.append(
                    {"epoch": self.epoch, "size": size} | learnt | found | speed
                )
                self._save()
                progress.epoch(self._state.history[-1])

    def result(self) -> DeepViT:
        """What a run is for: the average of the weights, in evaluation mode."""
        return self._settled(self.data.training, self.rule.size.side)

    @torch.no_grad()
    def _settled(self, photographs: Photographs, size: int) -> DeepViT:
        """The average of the weights, with statistics of its own for its norms.

        Those that the weights on the way had, maybe on smaller pictures, do not average to them.
        """
        network = resized(copy.deepcopy(self._average()), size).train()
        norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
        augment = Augment(self.recipe, self.rule, size)
        batches = islice(self._batches(), _SETTLING_BATCHES) if norms else ()
        for count, (draws, chosen) in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / count  # of all batches so far, each weighs the same
            images, _ = self._batch(photographs, chosen, draws, augment)
            with self._autocast():
                forward(network, images)  # a few batches are not worth compiling for
        for norm in norms:
            norm.momentum = _MOMENTUM
        return network.eval()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"
        )

    def _one_epoch(self, progress: Progress, pictures: Photographs, size: int) -> dict[str, float]:
        network, recipe = self._state.network.train(), self.recipe
        augment = Augment(recipe, self.rule, size)
        total, right = (torch.zeros((), device=self._device) for _ in range(2))
        for count, (draws, chosen) in enumerate(self._batches(), start=1):
            images, targets = self._batch(pictures, chosen, draws, augment)
            stays = stochastic_depth(self.config.depth, recipe.drop_path, recipe.batch_size, draws)
            with self._autocast():
                logits = self._forward(network, images, stays)
            logits = logits.float()
            labels, *teacher = targets.unbind(dim=1)
            error = loss(logits, labels, teacher[0] if teacher else None, recipe)
            self._update(error)
            total += error.detach()
            right += (logits.argmax(dim=1) == labels.argmax(dim=1)).sum()
            progress.step(count, error)
        return {
            "lr": float(self._state.schedule.get_last_lr()[0]),
            "loss": round(total.item() / self.steps_per_epoch, 4),
            "training_accuracy": round(right.item() / self._shown, 4),
        }

    def _batches(self) -> Iterator[tuple[Draws, Tensor]]:
        """Indices of pictures, batch by batch, in an order that the seed and the epoch give."""
        first = self.epoch * self.steps_per_epoch
        shown = order(self.recipe.seed, self.epoch, len(self.data.training)).to(self._device)
        batches = shown.split(self.recipe.batch_size)[: self.steps_per_epoch]
        for index, chosen in enumerate(batches):
            yield Draws(self.recipe.seed, first + index, self._device), chosen

    def _batch(
        self, pictures: Photographs, chosen: Tensor, draws: Draws, augment: Augment
    ) -> tuple[Tensor, Tensor]:
        """Network inputs [B, 3, S, S] and targets [B, 1 or 2, classes]."""
        data, recipe = self.data, self.recipe
        images = augment(pictures.pixels[chosen], pictures.sizes[chosen], draws)
        labels = F.one_hot(pictures.labels[chosen], data.classes).float()
        labels = labels.lerp(torch.full_like(labels, 1 / data.classes), recipe.label_smoothing)
        targets = labels[:, None]
        if data.soft is not None:
            targets = torch.stack((labels, self._softened(data.soft[chosen])), dim=1)
        images, targets = mixed(images, targets, recipe, draws)
        if self._teacher is not None:
            with torch.no_grad():
                answers = self._softened(self._teacher(images))
            targets = torch.stack((targets[:, 0], answers), dim=1)
        images = normalize(images, self.rule)
        return images.contiguous(memory_format=torch.channels_last), targets

    def _softened(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.recipe.distill_temperature).softmax(dim=1)

    def _update(self, error: Tensor) -> None:
        state = self._state
        state.optimizer.zero_grad(set_to_none=True)
        error.backward()
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), self.recipe.clip_norm)
        state.optimizer.step()
        state.schedule.step()
        state.average.update_parameters(state.network)

    def _save(self) -> None:
        self._state.save(self._folder / "state.pt", self._identity)
        partial = self._folder / "metrics.partial"
        partial.write_text(
            "".join(json.dumps(line) + "\n" for line in self._state.history), encoding="utf-8"
        )
        partial.replace(self._folder / "metrics.jsonl")
