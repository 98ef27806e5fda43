"""Hugging Face's preprocessor_config.json as facts about preprocessing."""

from collections.abc import Mapping
from typing import Any

from models.formats.source import CheckpointError
from models.size import Size

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_CROPPING = ("CLIP", "DeiT", "BitImage", "Dinov2")  # processors that crop unless told otherwise


def preprocessing(processor: Mapping[str, Any], crops: bool) -> dict[str, Any]:
    """Facts by field of `Preprocessing`; `crops` is what this kind of network does by default.

    Raises `CheckpointError` for steps that are not supported.
    """
    if not processor:
        return {}
    facts: dict[str, Any] = {}
    if "resample" in processor:
        if processor["resample"] not in _RESAMPLE:
            raise CheckpointError(f"resample {processor['resample']} is not supported")
        facts["interpolation"] = _RESAMPLE[processor["resample"]]
    bright = 255 * processor.get("rescale_factor", 1 / 255) if _on(processor, "rescale") else 255
    for theirs, ours, none in (("image_mean", "mean", 0.0), ("image_std", "std", 1.0)):
        values = processor.get(theirs, (0.5,) * 3) if _on(processor, "normalize") else (none,) * 3
        facts[ours] = tuple(value / bright for value in values)
    size, crop = _size(processor.get("size")), _crop(processor, crops)
    if crop and size:
        shares = {crop.height / size.height, crop.width / size.width}
        if max(shares) > 1:
            raise CheckpointError(f"a crop of {crop} pixels out of {size} is not supported")
        facts["crop_pct"] = min(shares)
    else:
        facts["crop_pct"] = 1.0
    shorter = isinstance(processor.get("size"), Mapping) and "shortest_edge" in processor["size"]
    facts["resize_mode"] = "shorter_side" if shorter else "both_sides"
    return facts


def crop_of(processor: Mapping[str, Any]) -> Size | None:
    """The input size that the processor makes, if it says so."""
    return _crop(processor, crops=True) or _size(processor.get("size"))


def _crop(processor: Mapping[str, Any], crops: bool) -> Size | None:
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type"))
    default = crops or kind.startswith(_CROPPING)
    return _size(processor.get("crop_size")) if processor.get("do_center_crop", default) else None


def _on(processor: Mapping[str, Any], step: str) -> bool:
    return bool(processor.get(f"do_{step}", True))


def _size(size: Any) -> Size | None:
    """From 224, {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return Size(int(size["height"]), int(size["width"]))
        if "shortest_edge" in size and "longest_edge" not in size:
            return Size.of(int(size["shortest_edge"]))
        raise CheckpointError(f"preprocessing to {dict(size)} is not supported")
    return Size.of(int(size)) if size else None
