"""Which part of which attention maps a person asks for, and cutting it out of a model's outputs.

Knows the manifest and arrays; nothing of HTTP or of how the arrays came to be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from models.arrays import Float32Array
from models.manifest import Manifest, Stage
from service.errors import InvalidSelection

Direction = Literal["from", "to"]
Reduction = Literal["mean", "max", "max_abs", "rms"]

_REDUCE: dict[str, Callable[[Float32Array], Float32Array]] = {
    "mean": lambda maps: maps.mean(axis=0),
    "max": lambda maps: maps.max(axis=0),
    "max_abs": lambda maps: np.abs(maps).max(axis=0),
    "rms": lambda maps: np.sqrt(np.square(maps).mean(axis=0)),
}
ROLLOUT = "rollout"


@dataclass(frozen=True)
class AttentionMaps:
    """The answer: values [layer, head, token] or [layer, head, query, key]."""

    values: Float32Array
    stage: Stage
    layers: tuple[int | str, ...]
    heads: tuple[int | str, ...]
    query: str
    direction: Direction

    @property
    def axes(self) -> tuple[str, ...]:
        if self.values.ndim == 4:
            return ("layer", "head", "query", "key")
        return ("layer", "head", "key" if self.direction == "from" else "query")

    @property
    def range(self) -> tuple[float, float]:
        return float(self.values.min()), float(self.values.max())


@dataclass(frozen=True)
class Selection:
    """Layers, heads and queries of one stage, checked against a model."""

    manifest: Manifest
    stage: Stage
    layers: tuple[int, ...]  # empty for the rollout over all of them
    heads: tuple[int, ...] | Reduction
    token: int | None  # the query, or None for all
    query: str
    direction: Direction

    @classmethod
    def parse(
        cls, manifest: Manifest, *, stage: Stage, layer: str, head: str, query: str, direction: str
    ) -> "Selection":
        """From the words of a request. Raises `InvalidSelection` saying what would fit."""
        config = manifest.config
        if layer == ROLLOUT and stage != "softmax":
            raise InvalidSelection("rollout is defined on the softmax stage: add stage=softmax")
        if direction not in get_args(Direction):
            raise InvalidSelection(f"direction is from or to, not {direction!r}")
        return cls(
            manifest=manifest,
            stage=stage,
            layers=() if layer == ROLLOUT else _indices("layer", layer, config.depth, (ROLLOUT,)),
            heads=(
                head  # type: ignore[arg-type]
                if head in _REDUCE
                else _indices("head", head, config.num_heads, tuple(_REDUCE))
            ),
            token=_token(query, config.grid, config.prefix_tokens),
            query=query,
            direction=direction,  # type: ignore[arg-type]
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values that `cut` will give."""
        tokens = self.manifest.config.num_tokens
        heads = 1 if isinstance(self.heads, str) or not self.layers else len(self.heads)
        return (max(1, len(self.layers)), heads, *([tokens] * (2 if self.token is None else 1)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The explain outputs to ask the model for, the smallest that hold the selection."""
        output = self.manifest.output
        if not self.layers:
            return (output(ROLLOUT, "softmax").name,)
        if self._class_rows:
            return (output("class_rows", self.stage).name,)
        names = (output("map", self.stage, layer).name for layer in self.layers)
        return tuple(dict.fromkeys(names))

    def cut(self, outputs: Mapping[str, Float32Array]) -> AttentionMaps:
        """The selected values out of `outputs` of one image."""
        layers: list[Float32Array] = []
        if not self.layers:
            layers.append(self._query(outputs[self.outputs[0]][None]))
        for layer in self.layers:
            if self._class_rows:
                rows = outputs[self.outputs[0]][layer]  # [H, N]
            else:
                rows = self._query(outputs[self.manifest.output("map", self.stage, layer).name])
            layers.append(self._reduce(rows))
        heads = (self.heads,) if isinstance(self.heads, str) else self.heads
        return AttentionMaps(
            values=np.stack(layers),
            stage=self.stage,
            layers=self.layers or (ROLLOUT,),
            heads=heads if self.layers else ("mean",),
            query=self.query,
            direction=self.direction,
        )

    @property
    def _class_rows(self) -> bool:
        return self.token == 0 and self.direction == "from"

    def _query(self, maps: Float32Array) -> Float32Array:
        """Rows or columns of maps [H, N, N], or all of them."""
        if self.token is None:
            return maps
        return maps[:, self.token] if self.direction == "from" else maps[:, :, self.token]

    def _reduce(self, maps: Float32Array) -> Float32Array:
        if isinstance(self.heads, str):
            return _REDUCE[self.heads](maps)[None]
        return maps[list(self.heads)]


def _indices(what: str, text: str, count: int, words: tuple[str, ...]) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(count))
    parts = text.split(",")
    if all(_below(part, count) for part in parts):
        return tuple(dict.fromkeys(map(int, parts)))
    raise InvalidSelection(
        f"{what} is all, {', '.join(words)}, or numbers from 0 to {count - 1} with commas "
        f"between them; not {text[:40]!r}"
    )


def _token(query: str, grid: int, prefix: int) -> int | None:
    """Index of a query token: 0 for the class token, patches row by row behind the prefix."""
    if query == "all":
        return None
    if query == "cls":
        return 0
    parts = query.split(",")
    if len(parts) == 2 and all(_below(part, grid) for part in parts):
        row, column = map(int, parts)
        return prefix + row * grid + column
    raise InvalidSelection(
        f"query is cls, all, or row,column with both from 0 to {grid - 1}; not {query[:40]!r}"
    )


def _below(text: str, count: int) -> bool:
    """Whether a text is a plain number under `count`."""
    return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < count
