"""Selecting attention maps by stage, layer, head and query, and cutting them out of model outputs.

Knows the manifest and arrays; nothing of HTTP or of how the outputs are computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from models.arrays import Float32Array
from models.config import DeepViTConfig
from models.manifest import Manifest
from models.stages import Stage
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
    """Selected maps: values [layer, head, token] or [layer, head, query, key]."""

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
    """Layers, heads and queries of one stage, validated for a model."""

    manifest: Manifest
    stage: Stage
    layers: tuple[int, ...]  # empty for the rollout, which is over all layers
    heads: tuple[int, ...] | Reduction
    token: int | None  # index of the query, or None for all
    query: str
    direction: Direction

    @classmethod
    def parse(
        cls,
        manifest: Manifest,
        *,
        stage: Stage,
        layer: str,
        head: str,
        query: str | None,
        direction: str,
    ) -> "Selection":
        """From a request's parameters; without a query, the model's default one.

        Raises `InvalidSelection`, which says what is valid.
        """
        config = manifest.config
        query = config.default_query if query is None else query
        if layer == ROLLOUT and stage != "softmax":
            raise InvalidSelection("rollout is defined on the softmax stage: add stage=softmax")
        if direction not in get_args(Direction):
            raise InvalidSelection(f"direction must be from or to, not {direction!r}")
        return cls(
            manifest=manifest,
            stage=stage,
            layers=() if layer == ROLLOUT else _indices("layer", layer, config.depth, (ROLLOUT,)),
            heads=(
                head  # type: ignore[arg-type]
                if head in _REDUCE
                else _indices("head", head, config.num_heads, tuple(_REDUCE))
            ),
            token=_token(query, config),
            query=query,
            direction=direction,  # type: ignore[arg-type]
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values that `cut` returns."""
        tokens = self.manifest.config.num_tokens
        heads = 1 if isinstance(self.heads, str) or not self.layers else len(self.heads)
        return (max(1, len(self.layers)), heads, *([tokens] * (2 if self.token is None else 1)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The explain outputs to request: the smallest that contain the selection."""
        output = self.manifest.output
        if not self.layers:
            return (output(ROLLOUT, "softmax").name,)
        if self._class_rows:
            return (output("class_rows", self.stage).name,)
        names = (output("map", self.stage, layer).name for layer in self.layers)
        return tuple(dict.fromkeys(names))

    def cut(self, outputs: Mapping[str, Float32Array]) -> AttentionMaps:
        """The selected values from the outputs for one image."""
        values: list[Float32Array] = []
        if not self.layers:
            values.append(self._rows(outputs[self.outputs[0]][None]))
        for layer in self.layers:
            if self._class_rows:
                rows = outputs[self.outputs[0]][layer]  # [H, N]
            else:
                rows = self._rows(outputs[self.manifest.output("map", self.stage, layer).name])
            values.append(self._reduce(rows))
        heads = (self.heads,) if isinstance(self.heads, str) else self.heads
        return AttentionMaps(
            values=np.stack(values),
            stage=self.stage,
            layers=self.layers or (ROLLOUT,),
            heads=heads if self.layers else ("mean",),
            query=self.query,
            direction=self.direction,
        )

    @property
    def _class_rows(self) -> bool:
        return self.query == "cls" and self.direction == "from"

    def _rows(self, maps: Float32Array) -> Float32Array:
        """The selected rows or columns of maps [H, N, N], or the maps."""
        if self.token is None:
            return maps
        return maps[:, self.token] if self.direction == "from" else maps[:, :, self.token]

    def _reduce(self, maps: Float32Array) -> Float32Array:
        if isinstance(self.heads, str):
            return _REDUCE[self.heads](maps)[None]
        return maps[list(self.heads)]


def _indices(parameter: str, text: str, count: int, keywords: tuple[str, ...]) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(count))
    parts = text.split(",")
    if all(_below(part, count) for part in parts):
        return tuple(dict.fromkeys(map(int, parts)))
    raise InvalidSelection(
        f"{parameter} must be all, {', '.join(keywords)}, or numbers from 0 to {count - 1} with "
        f"commas between them; not {text[:40]!r}"
    )


def _token(query: str, config: DeepViTConfig) -> int | None:
    """Index of a query token: 0 is the class token; patches follow the prefix tokens row by row."""
    grid = config.grid
    if query == "all":
        return None
    if query == "cls":
        if not config.class_token:
            raise InvalidSelection("this model has no class token: query must be all or row,column")
        return 0
    parts = query.split(",")
    if len(parts) == 2 and all(map(_below, parts, grid)):
        row, column = map(int, parts)
        return config.prefix_tokens + row * grid.width + column
    raise InvalidSelection(
        f"query must be cls, all, or row,column from 0,0 to "
        f"{grid.height - 1},{grid.width - 1}; not {query[:40]!r}"
    )


def _below(text: str, count: int) -> bool:
    """Whether a text is a decimal number below `count`."""
    return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < count
