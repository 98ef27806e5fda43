"""A report as JSON and CSV, with the same numbers, and its mean maps as arrays."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export.pictures import Pictures
from export.report.definitions import DEFINITIONS, TERMS
from export.report.measuring import Key, Measured
from export.report.running import CONFIDENCE
from export.report.verdict import Verdict, judge
from models.arrays import Float64Array
from models.collapse import VARIANTS
from models.stages import Stage

COLUMNS = (
    "model",
    "version",
    "stage",
    "measure",
    "block",
    "other_block",
    "head",
    "other_head",
    "mean",
    "low",
    "high",
    "images",
)


@dataclass(frozen=True)
class Report:
    """Everything that is in the page and the tables."""

    created_at: str
    command: str
    threshold: float
    pictures: Pictures
    models: tuple[Measured, ...]

    @cached_property
    def verdicts(self) -> dict[tuple[str, Stage], Verdict]:
        """By model and stage."""
        return {
            (model.manifest.name, stage): self._judge(model, stage)
            for model in self.models
            for stage in model.stages
        }

    def _judge(self, model: Measured, stage: Stage) -> Verdict:
        column, row, centred = (
            model.estimates[Key(stage, f"similarity.{variant}")] for variant in VARIANTS
        )
        above, below = (
            model.estimates[Key(stage, f"{kind}_vectors")].mean for kind in ("similar", "opposite")
        )
        evenness = None
        if stage == "softmax":
            entropy = model.estimates[Key(stage, "mean_entropy")].mean
            evenness = entropy / np.log(model.manifest.config.num_tokens)
        return judge(stage, self.threshold, column, row, centred, above, below, evenness)


def save(report: Report, folder: Path) -> None:
    """Write report.json, report.csv and report.npz."""
    (folder / "report.json").write_text(json.dumps(document(report), indent=1, allow_nan=False))
    with (folder / "report.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows(report))
    maps = {
        f"{model.manifest.name}.{stage}": values.astype(np.float32)
        for model in report.models
        for stage, values in model.maps.items()
    }
    np.savez_compressed(folder / "report.npz", allow_pickle=False, **maps)


def document(report: Report) -> dict[str, Any]:
    """The report as JSON; numbers that are not defined are null."""
    pictures = report.pictures
    return {
        "schema_version": 1,
        "created_at": report.created_at,
        "command": report.command,
        "threshold": report.threshold,
        "confidence": CONFIDENCE,
        "images": {
            "folder": str(pictures.folder),
            "found": pictures.found,
            "tried": pictures.chosen,
            "read": pictures.read,
            "unreadable": pictures.unreadable,
            "first_unreadable": pictures.named,
        },
        "terms": TERMS,
        "definitions": {name: definition.words for name, definition in DEFINITIONS.items()},
        "models": [_model(report, model) for model in report.models],
    }


def _model(report: Report, model: Measured) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "checkpoint": manifest.checkpoint.model_dump(include={"file", "sha256"}),
        "blocks": manifest.config.depth,
        "heads": manifest.config.num_heads,
        "tokens": manifest.config.num_tokens,
        "grid": list(manifest.config.grid),
        "prefix_tokens": manifest.config.prefix_tokens,
        "class_token": manifest.config.class_token,
        "reatten_blocks": list(manifest.config.reatten_blocks),
        "reatten_layer_norm": manifest.config.reatten_layer_norm,
        "attention_donor": manifest.config.attention_donor,
        "attention_reuse": manifest.attention_reuse and manifest.attention_reuse.model_dump(),
        "verdicts": [asdict(report.verdicts[manifest.name, stage]) for stage in model.stages],
        "measures": [
            {
                "stage": key.stage,
                "measure": key.measure,
                "axes": DEFINITIONS[key.measure].axes,
                "images": estimate.images,
                "mean": _listed(estimate.mean),
                "low": _listed(estimate.low),
                "high": _listed(estimate.high),
            }
            for key, estimate in model.estimates.items()
        ],
    }


def rows(report: Report) -> Iterator[dict[str, Any]]:
    """A row for each entry of each measure; numbers that are not defined are empty."""
    for model in report.models:
        for key, estimate in model.estimates.items():
            axes = DEFINITIONS[key.measure].axes
            for index in np.ndindex(estimate.mean.shape):
                yield {
                    "model": model.manifest.name,
                    "version": model.manifest.version,
                    "stage": key.stage or "",
                    "measure": key.measure,
                    **dict(zip(axes, index, strict=True)),
                    "mean": _number(float(estimate.mean[index]), ""),
                    "low": _number(float(estimate.low[index]), ""),
                    "high": _number(float(estimate.high[index]), ""),
                    "images": estimate.images,
                }


def _number(value: float, absent: Any = None) -> Any:
    """Rounded to six significant digits, as many as single precision has."""
    return float(f"{value:.6g}") if np.isfinite(value) else absent


def _listed(values: Float64Array) -> Any:
    return [_number(v) for v in values] if values.ndim == 1 else [_listed(v) for v in values]
