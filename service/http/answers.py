"""Results to the JSON bodies of answers."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import Response

from models.arrays import Float32Array
from models.config import Scores
from models.manifest import Manifest
from service.explain.selection import AttentionMaps
from service.explain.similarity import DEFINITIONS, Similarity
from service.inference.scores import top_classes
from service.json_arrays import json_array
from service.pipeline import Classification


def json_response(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """JSON from data that may hold NumPy arrays; float32 values keep their shortest form."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, headers=headers, media_type="application/json")


def predictions(
    logits: Float32Array, labels: tuple[str, ...], top_k: int, scores: Scores
) -> list[Any]:
    """The `top_k` most probable classes, best first."""
    return [
        {"index": index, "label": labels[index], "probability": probability}
        for index, probability in zip(*top_classes(logits, top_k, scores), strict=True)
    ]


def image(
    classified: Classification, manifest: Manifest, top_k: int, root_path: str
) -> dict[str, Any]:
    """One result of /classify, still without its postprocessing time.

    `root_path` is the prefix of the service's own paths.
    """
    query = f"id={classified.id}&{_model_query(manifest.name, manifest.version)}"
    return {
        "id": classified.id,
        "predictions": predictions(
            classified.outputs["logits"], manifest.labels, top_k, manifest.config.scores
        ),
        "timings_ms": {
            "decode": ms(classified.image.decode_s),
            "preprocess": ms(classified.image.preprocess_s),
            "queue": ms(classified.queue_s),
            "inference": ms(classified.inference_s),
        },
        "links": {
            "attention_maps": f"{root_path}/attention-maps?{query}",
            "similarity": f"{root_path}/similarity?{query}",
        },
    }


@cache
def _model_query(name: str, version: int) -> str:
    return urlencode({"model": name, "version": version})


def attention(maps: AttentionMaps, manifest: Manifest, image_id: str) -> dict[str, Any]:
    return attention_facts(maps, manifest, image_id) | {"values": json_array(maps.values)}


def attention_facts(maps: AttentionMaps, manifest: Manifest, image_id: str) -> dict[str, Any]:
    """The answer without its values, for formats that carry the values themselves."""
    return {
        "id": image_id,
        "model": manifest.name,
        "version": manifest.version,
        "stage": maps.stage,
        "layers": maps.layers,
        "heads": maps.heads,
        "query": maps.query,
        "direction": maps.direction,
        "grid": list(manifest.config.grid),
        "axes": maps.axes,
        "shape": maps.values.shape,
        "range": maps.range,
    }


def similarity(found: Similarity, manifest: Manifest, image_id: str) -> dict[str, Any]:
    return {
        "id": image_id,
        "model": manifest.name,
        "version": manifest.version,
        "stage": found.stage,
        "definitions": DEFINITIONS,
        "matrix": found.matrix,
        "neighbours": {
            "mean": found.neighbours,
            "above_threshold": found.above_threshold,
            "below_negative": found.below_negative,
        },
        "similar_blocks": {
            "threshold": found.threshold,
            "count": len(found.similar_blocks),
            "share": round(found.similar_share, 6),
            "blocks": found.similar_blocks,
        },
        "heads": found.heads,
        "features": found.features,
        "entropy": found.entropy,
        "attention_distance": found.attention_distance,
    }


def ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
