"""The columns of the answers: their names, the outputs that they need, and how they are filled."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from models.arrays import Float32Array
from models.manifest import Manifest, Output
from models.stages import TOKEN_MEASURES, stages
from service.bulk.settings import BulkSettings
from service.errors import ServiceError, StartupError
from service.inference.graphs import FEATURES
from service.inference.scores import top_classes

Row = dict[str, Any]

_NUMBERS = pa.list_(pa.float32())
_ALWAYS = {
    "path": pa.string(),
    "error": pa.string(),
    "detail": pa.string(),
    "labels": pa.list_(pa.string()),
    "indices": pa.list_(pa.int32()),
    "probabilities": pa.list_(pa.float64()),
}


class Columns:
    """Those that a run asks for, of one model."""

    def __init__(self, manifest: Manifest, settings: BulkSettings) -> None:
        """Raises `StartupError` if the model has no such output."""
        self._manifest = manifest
        self._top_k = settings.top_k
        self._logits = settings.logits
        self._outputs: dict[str, Output] = {}  # of the explain graph, by column
        if settings.features:
            width = manifest.config.head_width
            self._outputs[FEATURES] = Output(
                name=FEATURES, measure=FEATURES, axes=("batch", "feature"), shape=(width,)
            )
        if settings.class_rows:
            self._add("class_rows")
        if settings.similarity:
            self._add("neighbour_similarity")
        if settings.token_measures:
            self._outputs |= {measure: manifest.output(measure) for measure in TOKEN_MEASURES}

    @property
    def explain(self) -> tuple[str, ...]:
        """Outputs of the explain graph to ask for; none if the classifier is enough."""
        names = [output.name for output in self._outputs.values()]
        return ("logits", *names) if names else ()

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of the lists of numbers, by column: their values are those of an array in C order."""
        own = {"logits": [len(self._manifest.labels)]} if self._logits else {}
        return own | {name: self._shape(output) for name, output in self._outputs.items()}

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(_ALWAYS | dict.fromkeys(self.shapes, _NUMBERS))

    def answered(self, path: str, outputs: Mapping[str, Float32Array]) -> Row:
        """A row from the outputs for one image: its logits, and those of `explain`."""
        logits = outputs["logits"]
        indices, probabilities = top_classes(logits, self._top_k, self._manifest.config.scores)
        row: Row = {
            "path": path,
            "labels": [self._manifest.labels[index] for index in indices],
            "indices": indices,
            "probabilities": probabilities,
        }
        if self._logits:
            row["logits"] = logits.copy()  # of a batch, which would be kept
        for name, output in self._outputs.items():
            row[name] = self._values(output, outputs[output.name])
        return row

    def table(self, rows: Sequence[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, self.schema)

    def _add(self, measure: str) -> None:
        for stage in stages(self._manifest.config):
            try:
                output = self._manifest.output(measure, stage)
            except KeyError as exc:
                name = self._manifest.name
                raise StartupError(f"{name} has no {measure}: it has no class token") from exc
            self._outputs[f"{measure}_{stage}"] = output

    def _shape(self, output: Output) -> list[int]:
        shape = list(output.shape)
        return shape[:1] if output.measure == "neighbour_similarity" else shape

    def _values(self, output: Output, values: Float32Array) -> Float32Array:
        if output.measure == "neighbour_similarity":  # of heads and tokens, as /similarity has it
            values = values.mean(axis=(1, 2))
        return values.flatten()


def unreadable(path: str, error: ServiceError) -> Row:
    """A row of a file without answers."""
    return {"path": path, "error": error.code, "detail": error.detail}


def numbers_bytes(row: Row) -> int:
    """What the arrays of a row take in memory."""
    return sum(value.nbytes for value in row.values() if isinstance(value, np.ndarray))
