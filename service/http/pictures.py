"""Results to pictures: their titles and labels."""

from collections.abc import Iterable

import numpy as np

from models.arrays import Pixels
from models.config import DeepViTConfig
from models.manifest import Manifest
from service.explain.render import SCALE_WORDS, Scale
from service.explain.render.layout import Layout
from service.explain.render.maps import MapsPicture, render_maps
from service.explain.render.similarity import SimilarityPicture, render_similarity
from service.explain.selection import ROLLOUT, AttentionMaps, Selection
from service.explain.similarity import Similarity

_STAGES = {"softmax": "softmax stage", "reattention": "re-attention stage"}


def check_attention(selection: Selection, scale: Scale, overlay: bool) -> None:
    """Raises `AnswerTooLarge` if the maps of a selection would not fit one picture."""
    config, whole = selection.manifest.config, selection.token is None
    values = (config.num_tokens,) * 2 if whole else config.grid
    background = selection.manifest.preprocessing.size if overlay and not whole else None
    cell = None if whole else config.patch_size
    Layout.of((*selection.shape[:2], *values), scale, cell, background)


def attention(
    maps: AttentionMaps, manifest: Manifest, image_id: str, scale: Scale, background: Pixels | None
) -> bytes:
    """A PNG of maps, drawn over `background` if given. Raises `AnswerTooLarge`."""
    config = manifest.config
    values, query_patch, cell = maps.values, None, None
    if values.ndim == 4:
        background = None
        what = f"What each token (row) attends to (column); {_first_tokens(config)}"
    else:  # patches in their grid, of which other tokens are not part
        cell = config.patch_size
        values = values[..., config.prefix_tokens :].reshape(*values.shape[:2], *config.grid)
        if maps.query == "cls":
            query = "the class token"
        else:
            query = f"the outlined patch {maps.query}"
            row, column = map(int, maps.query.split(","))
            query_patch = (row, column)
        sees = (
            f"What {query} attends to" if maps.direction == "from" else f"What attends to {query}"
        )
        what = f"{sees}, among the patches"
    heads = maps.heads[0]
    quantity = "attention" if isinstance(heads, int) else f"attention, {heads} of heads"
    if maps.layers == (ROLLOUT,):
        quantity = "rollout, mean of heads"
    mixing = maps.stage == "reattention" and set(config.reatten_blocks).intersection(maps.layers)
    picture = MapsPicture(
        maps=values,
        title=_title(manifest, maps.stage),
        subtitles=[f"{what}; {SCALE_WORDS[scale]}", f"image {image_id}"],
        notes=_mixing(manifest),
        rows=_blocks(manifest, maps.layers, "block "),
        columns=[head if isinstance(head, str) else f"head {head}" for head in maps.heads],
        quantity=quantity,
        cell=cell,
        signed=bool(values.min() < 0 or (mixing and heads not in ("max_abs", "rms"))),
        scale=scale,
        background=background,
        query_patch=query_patch,
    )
    return render_maps(picture)


def _first_tokens(config: DeepViTConfig) -> str:
    if config.class_token:
        return "token 0 is the class token"
    if not config.prefix_tokens:
        return "tokens are patches, row by row"
    return f"patches follow {config.prefix_tokens} register{'s' * (config.prefix_tokens > 1)}"


def similarity(found: Similarity, manifest: Manifest, image_id: str, variant: str) -> bytes:
    """A PNG of all measures, with the block matrix of one variant or of all."""
    config = manifest.config
    mixing = found.stage == "reattention" and bool(config.reatten_blocks)
    similar = found.similar_blocks
    named = f": {', '.join(map(str, similar))}" if similar else ""
    picture = SimilarityPicture(
        title=_title(manifest, found.stage),
        subtitle="; ".join([f"image {image_id}", *_mixing(manifest)]),
        verdict=f"{len(similar)} of {len(found.neighbours)} blocks similar to the one before "
        f"(mean column cosine above {found.threshold:g}){named}",
        blocks=_blocks(manifest, range(config.depth), ""),
        matrices={
            name: matrix for name, matrix in found.matrix.items() if variant in ("all", name)
        },
        signed=mixing,
        threshold=found.threshold,
        neighbours=found.neighbours,
        above_threshold=found.above_threshold,
        heads=found.heads,
        features=found.features,
        entropy=found.entropy,
        max_entropy=float(np.log(config.num_tokens)),
        attention_distance=found.attention_distance,
    )
    return render_similarity(picture)


def _title(manifest: Manifest, stage: str) -> str:
    name = (
        manifest.name
        if len(manifest.name) <= 40
        else f"{manifest.name[:39]}\N{HORIZONTAL ELLIPSIS}"
    )
    return f"{name}, version {manifest.version}, {_STAGES[stage]}"


def _mixing(manifest: Manifest) -> list[str]:
    if not manifest.config.reatten_blocks:
        return []
    norm = ", with a LayerNorm over them" if manifest.config.reatten_layer_norm else ""
    return [f"* a block that mixes heads{norm}"]


def _blocks(manifest: Manifest, blocks: Iterable[int | str], prefix: str) -> list[str]:
    mixing = manifest.config.reatten_blocks
    return [
        block if isinstance(block, str) else f"{prefix}{block}{'*' * (block in mixing)}"
        for block in blocks
    ]
