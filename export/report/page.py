"""A report as one self-contained HTML page, without scripts and network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from export.comparison import in_words
from export.report import charts
from export.report.charts import Line, Scale
from export.report.definitions import DEFINITIONS, TERMS
from export.report.measuring import Key, Measured
from export.report.running import Estimate
from export.report.tables import Report
from export.report.verdict import blocks_in_words
from models.arrays import Float64Array
from models.collapse import VARIANTS, neighbours
from models.stages import Stage

_ALIKE = Scale(-1, 1, "RdBu_r")
_STYLES = 6  # colours of the page
# Similar blocks by depth, as published for ImageNet (the paper's Fig. 3b and Table 1).
_PUBLISHED = ((16, 24, 32), {"ViT": (5, 11, 15), "DeepViT": (0, 0, 0)})
_CLIPPED = 99.5  # percentile of a mean map's entries at which colours are clipped


def save(report: Report, folder: Path) -> None:
    """Write report.html."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        report=report,
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        definitions=DEFINITIONS,
        terms=TERMS,
        blocks_in_words=blocks_in_words,
        rows=[row for model in report.models for row in _summary(report, model)],
        legend=_legend(report),
        similarity_scale=charts.bar(_ALIKE),
        matrices=[entry for model in report.models for entry in _matrices(model)],
        neighbours={v: _neighbours(report, v) for v in VARIANTS},
        charts=_charts(report),
        heads=[entry for model in report.models for entry in _heads(model)],
        maps=list(_maps(report)),
        clipped=_CLIPPED,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _summary(report: Report, model: Measured) -> Iterator[dict[str, Any]]:
    for stage in model.stages:
        verdict = report.verdicts[model.manifest.name, stage]
        alike = {v: _between(model, stage, v) for v in VARIANTS}
        yield {
            "name": model.manifest.name,
            "stage": _stage(model, stage),
            "verdict": verdict,
            "reuse": _reuse(model) if stage == "softmax" else "",
            "last": model.manifest.config.depth - 1,
            "alike": {variant: _ends(values) for variant, values in alike.items()},
            "above": {
                variant: int((values.mean > report.threshold).sum())
                for variant, values in alike.items()
            },
        }


def _reuse(model: Measured) -> str:
    """What attention reuse costs and saves, for a model that was exported with it."""
    config, reuse = model.manifest.config, model.manifest.attention_reuse
    if config.attention_donor is None or reuse is None:
        return ""
    later = range(config.attention_donor + 1, config.depth)
    sharing = f"{blocks_in_words(later)} share{'s' if len(later) == 1 else ''}"
    forced = ", though not all had collapsed" if reuse.forced else ""
    return (
        f"Exported with attention reuse: {sharing} the softmax map of block "
        f"{config.attention_donor}{forced}. Against the model as trained: "
        f"{in_words(reuse.comparison)}."
    )


def _between(model: Measured, stage: Stage, variant: str) -> Estimate:
    """Similarity of each block to the one before it, [L]."""
    whole = model.estimates[Key(stage, f"similarity.{variant}")]
    return Estimate(neighbours(whole.mean), neighbours(whole.half_width), whole.images)


def _ends(values: Estimate) -> list[str]:
    """The least and greatest value over blocks."""
    if len(values.mean) < 2:
        return []
    ends = (int(np.nanargmin(values.mean)), int(np.nanargmax(values.mean)))
    return [
        f"{values.mean[block]:.3f}"
        + (f" ± {values.half_width[block]:.3f}" if values.images > 1 else "")
        for block in ends
    ]


def _style(report: Report, model: Measured, stage: Stage | None) -> str:
    """A colour for each model, with dashes for maps before mixing."""
    early = stage == "softmax" and len(model.stages) > 1
    return f"c{report.models.index(model) % _STYLES}" + (" early" if early else "")


def _name(model: Measured, stage: Stage | None) -> str:
    return f"{model.manifest.name}, {_stage(model, stage)}" if stage else model.manifest.name


def _stage(model: Measured, stage: Stage) -> str:
    """The name of a stage, with the norm over heads if that is not folded."""
    normed = stage == "reattention" and model.manifest.config.reatten_layer_norm
    return f"{stage} with LayerNorm" if normed else stage


def _legend(report: Report) -> dict[str, list[tuple[str, str]]]:
    """Style and name of each curve, for each kind of chart."""
    shown: dict[str, list[tuple[Measured, Stage | None]]] = {
        "stages": [(model, stage) for model in report.models for stage in model.stages],
        "softmax": [(model, "softmax") for model in report.models],
        "tokens": [(model, None) for model in report.models],
    }
    return {
        about: [(_style(report, *curve), _name(*curve)) for curve in curves]
        for about, curves in shown.items()
    }


def _line(report: Report, model: Measured, stage: Stage | None, values: Estimate) -> Line:
    blocks = range(model.manifest.config.depth)
    style = _style(report, model, stage)
    return Line(_name(model, stage), style, blocks, values.mean, values.low, values.high)


def _neighbours(report: Report, variant: str) -> Markup:
    curves = [
        _line(report, model, stage, _between(model, stage, variant))
        for model in report.models
        for stage in model.stages
    ]
    label = f"{variant} similarity of each block to the one before it"
    return charts.lines(curves, label, (0, 1), rule=report.threshold)


def _charts(report: Report) -> dict[str, Markup]:
    """Curves over blocks by measure, and similar blocks over depth."""
    limits: dict[str, tuple[float, float]] = {
        "similar_vectors": (0, 1),
        "opposite_vectors": (0, 1),
        "other_heads": (0, 1),
        "mean_entropy": (0, max(np.log(m.manifest.config.num_tokens) for m in report.models)),
        "mean_attention_distance": (0, 0),
        "feature_similarity": (0, 1),
        "rank_residual": (0, 1),
        "token_similarity": (0, 1),
    }
    uniform = {float(np.log(model.manifest.config.num_tokens)) for model in report.models}
    rules = {"mean_entropy": uniform.pop() if len(uniform) == 1 else None}
    found = {
        measure: charts.lines(
            [
                _line(report, model, key.stage, estimate)
                for model in report.models
                for key, estimate in model.estimates.items()
                if key.measure == measure
            ],
            measure.replace("_", " "),
            bounds,
            rules.get(measure),
        )
        for measure, bounds in limits.items()
    }
    depths, published = _PUBLISHED
    curves = [
        Line(f"{name} (published, ImageNet)", f"published {name.lower()}", depths, np.array(count))
        for name, count in published.items()
    ]
    for model in report.models:
        for stage in model.stages:
            count = len(report.verdicts[model.manifest.name, stage].similar)
            depth = [model.manifest.config.depth]
            style = _style(report, model, stage)
            curves.append(Line(_name(model, stage), style, depth, np.array([count])))
    found["depth"] = charts.lines(
        curves, "similar blocks against depth", (0, 16), across="blocks in the model"
    )
    return found


def _matrices(model: Measured) -> Iterator[dict[str, Any]]:
    for stage in model.stages:
        yield {
            "name": _name(model, stage),
            "variants": {
                variant: charts.matrix(
                    model.estimates[Key(stage, f"similarity.{variant}")].mean,
                    _ALIKE,
                    f"{_name(model, stage)}: {variant} similarity of all pairs of blocks",
                )
                for variant in VARIANTS
            },
        }


def _heads(model: Measured) -> Iterator[dict[str, Any]]:
    for stage in model.stages:
        values = model.estimates[Key(stage, "head_similarity")].mean
        yield {"name": _name(model, stage), "blocks": _strip(model, values, _ALIKE, "heads")}


def _maps(report: Report) -> Iterator[dict[str, Any]]:
    """Mean maps, with one scale for each stage, from zero or symmetric about it."""
    for stage in ("softmax", "reattention"):
        shown = [model for model in report.models if stage in model.maps]
        if not shown:
            continue
        entries = np.concatenate([np.abs(model.maps[stage]).ravel() for model in shown])
        end = float(np.percentile(entries, _CLIPPED))
        scale = Scale(0, end, "viridis") if stage == "softmax" else Scale(-end, end, "RdBu_r")
        yield {
            "stage": stage,
            "bar": charts.bar(scale),
            "models": [
                {
                    "name": _name(model, stage),
                    "blocks": _strip(model, model.maps[stage], scale, "mean map"),
                }
                for model in shown
            ],
        }


def _strip(
    model: Measured, values: Sequence[Float64Array] | Float64Array, scale: Scale, what: str
) -> list[tuple[str, Markup]]:
    mixing = model.manifest.config.reatten_blocks
    return [
        (
            f"{block} Θ" if block in mixing else f"{block}",
            charts.picture(entries, scale, f"{what} of block {block}"),
        )
        for block, entries in enumerate(values)
    ]
