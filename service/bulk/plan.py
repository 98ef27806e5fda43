"""The plan of a run: all that its parts have in common, so that none is mixed with another's."""

from typing import Any

from models.manifest import Manifest
from service.bulk.columns import Columns
from service.bulk.settings import BulkSettings


def plan_of(
    settings: BulkSettings, manifest: Manifest, precision: str, columns: Columns
) -> dict[str, Any]:
    """What all parts of a folder have in common: whatever decides about an answer."""
    return {
        "ray": settings.ray,
        "model": manifest.name,
        "version": manifest.version,
        "export": manifest.digest,
        "precision": precision,
        "source": settings.source.rstrip("/"),
        "top_k": settings.top_k,
        "shapes": columns.shapes,
        "image_formats": settings.formats,
        "max_image_pixels": settings.max_image_pixels,
        "max_decode_s": settings.max_decode_s,
        "max_file_bytes": settings.max_file_bytes,
        "reduced_decode": settings.reduced_decode,
    }
