"""A selection gives the same values as plain NumPy indexing of the maps."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from models.arrays import Float32Array
from models.config import ARCHITECTURES, DeepViTConfig
from models.manifest import Checkpoint, Manifest, Output, Versions
from models.preprocess import Preprocessing
from models.stages import STAGES, Stage
from service.errors import InvalidSelection
from service.explain.selection import AttentionMaps, Selection

CONFIG = ARCHITECTURES[
    "deepvit_test"
].config  # 3 blocks, of which 0 is plain; 3 heads; 4 x 4 patches
L, H, N = CONFIG.depth, CONFIG.num_heads, CONFIG.num_tokens


def manifest_of(config: DeepViTConfig) -> Manifest:
    """A manifest that declares the outputs of a network's explain graph."""
    return Manifest(
        name="test",
        version=1,
        exported_at="2025-01-01T00:00:00Z",
        config=config,
        preprocessing=Preprocessing(size=config.img_size),
        labels=tuple(map(str, range(config.num_classes))),
        max_batch_size=4,
        max_explain_batch_size=4,
        reattention=(),
        outputs=tuple(_outputs(config)),
        checkpoint=Checkpoint(file="test", sha256="0" * 64, arch=None, notes=()),
        versions=Versions(torch="2", onnx="1", onnxruntime="1", opset=18),
        parity=(),
    )


def _outputs(config: DeepViTConfig) -> Iterator[Output]:
    depth, heads, tokens = config.depth, config.num_heads, config.num_tokens
    yield Output(name="feature_similarity", measure="feature_similarity", axes=(), shape=(depth,))
    for stage in STAGES if config.reatten_blocks else STAGES[:1]:
        shapes: dict[str, tuple[int, ...]] = {
            "class_rows": (depth, heads, tokens),
            "similarity.column": (depth, depth),
            "similarity.row": (depth, depth),
            "similarity.centred": (depth, depth),
            "neighbour_similarity": (depth - 1, heads, tokens),
            "head_similarity": (depth, heads, heads),
        }
        if stage == "softmax":
            shapes["rollout"] = (tokens, tokens)
            shapes["entropy"] = shapes["attention_distance"] = (depth, heads)
        for measure, shape in shapes.items():
            name = f"{stage}.{measure}"
            yield Output(name=name, measure=measure, axes=(), shape=shape, stage=stage)
        for block in range(depth) if stage == "softmax" else config.reatten_blocks:
            yield Output(
                name=f"{stage}.map.{block:02}",
                measure="map",
                axes=(),
                shape=(heads, tokens, tokens),
                stage=stage,
                block=block,
            )


MANIFEST = manifest_of(CONFIG)
RANDOM = np.random.default_rng(0)
# Maps [layer, head, query, key]; signed, as maps after Re-attention may be.
MAPS: dict[Stage, Float32Array] = {
    stage: RANDOM.normal(size=(L, H, N, N)).astype(np.float32) for stage in STAGES
}
MAPS["reattention"][0] = MAPS["softmax"][0]  # block 0 has no Re-attention
ROLLOUT: Float32Array = RANDOM.random((N, N), dtype=np.float32)
OUTPUTS: dict[str, Float32Array] = {
    **{f"softmax.map.{block:02}": MAPS["softmax"][block] for block in range(L)},
    **{f"reattention.map.{block:02}": MAPS["reattention"][block] for block in range(1, L)},
    **{f"{stage}.class_rows": MAPS[stage][:, :, 0] for stage in STAGES},
    "softmax.rollout": ROLLOUT,
}

LAYERS = {"all": [0, 1, 2], "0": [0], "2,0": [2, 0], "1,1,2": [1, 2]}
HEADS = {"all": [0, 1, 2], "1": [1], "2,0": [2, 0]}
QUERIES = {"all": None, "cls": 0, "0,0": 1, "2,3": 1 + 2 * 4 + 3, "3,3": N - 1}
DIRECTIONS = ("from", "to")
REDUCTIONS: dict[str, Callable[[Float32Array], Float32Array]] = {
    "mean": lambda maps: np.sum(maps, axis=1) / H,
    "max": lambda maps: np.sort(maps, axis=1)[:, -1],
    "max_abs": lambda maps: np.sort(np.abs(maps), axis=1)[:, -1],
    "rms": lambda maps: np.sqrt(np.sum(maps.astype(np.float64) ** 2, axis=1) / H),
}


def select(
    stage: Stage = "softmax",
    layer: str = "all",
    head: str = "all",
    query: str = "cls",
    direction: str = "from",
    manifest: Manifest = MANIFEST,
) -> Selection:
    return Selection.parse(
        manifest, stage=stage, layer=layer, head=head, query=query, direction=direction
    )


def test_patches_follow_all_prefix_tokens() -> None:
    registers = manifest_of(CONFIG.model_copy(update={"prefix_tokens": 4}))
    assert select(query="0,0", manifest=registers).token == 4
    assert select(query="3,3", manifest=registers).token == registers.config.num_tokens - 1
    assert select(query="cls", manifest=registers).token == 0


def cut(selection: Selection) -> AttentionMaps:
    """Cut from only the outputs that the selection names; checks `shape` and `axes`."""
    answer = selection.cut({name: OUTPUTS[name] for name in selection.outputs})
    assert answer.values.shape == selection.shape
    assert len(answer.axes) == answer.values.ndim
    assert (len(answer.layers), len(answer.heads)) == selection.shape[:2]
    return answer


def queried(maps: Float32Array, query: str, direction: str) -> Float32Array:
    token = QUERIES[query]
    if token is None:
        return maps
    taken: Float32Array = np.take(maps, token, axis=-2 if direction == "from" else -1)
    return taken


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_cut_is_plain_indexing(stage: Stage, query: str, direction: str) -> None:
    for (layer, layers), (head, heads) in product(LAYERS.items(), HEADS.items()):
        answer = cut(select(stage, layer, head, query, direction))
        expected = queried(MAPS[stage][layers][:, heads], query, direction)
        np.testing.assert_array_equal(answer.values, expected)
        assert (answer.layers, answer.heads) == (tuple(layers), tuple(heads))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("head", REDUCTIONS)
def test_a_reduction_is_over_the_heads_of_each_layer(head: str, query: str, direction: str) -> None:
    for stage, (layer, layers) in product(STAGES, LAYERS.items()):
        answer = cut(select(stage, layer, head, query, direction))
        expected = queried(REDUCTIONS[head](MAPS[stage][layers]), query, direction)
        np.testing.assert_allclose(answer.values, expected[:, None], rtol=1e-5, atol=1e-6)
        assert answer.heads == (head,)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("head", ["all", "mean", "1"])
def test_the_rollout_is_one_layer_and_one_head(head: str, query: str, direction: str) -> None:
    selection = select("softmax", "rollout", head, query, direction)
    assert selection.outputs == ("softmax.rollout",)
    answer = cut(selection)
    np.testing.assert_array_equal(answer.values[0, 0], queried(ROLLOUT, query, direction))
    assert (answer.layers, answer.heads) == (("rollout",), ("mean",))


@pytest.mark.parametrize(
    ("query", "direction", "axes"),
    [
        ("all", "from", ("layer", "head", "query", "key")),
        ("all", "to", ("layer", "head", "query", "key")),
        ("cls", "from", ("layer", "head", "key")),
        ("cls", "to", ("layer", "head", "query")),
    ],
)
def test_axes_name_the_remaining_dimensions(
    query: str, direction: str, axes: tuple[str, ...]
) -> None:
    assert cut(select(query=query, direction=direction)).axes == axes


@pytest.mark.parametrize(
    ("stage", "layer", "query", "direction", "outputs"),
    [
        ("softmax", "all", "cls", "from", ("softmax.class_rows",)),
        ("reattention", "0", "cls", "from", ("reattention.class_rows",)),
        ("softmax", "1,2", "cls", "to", ("softmax.map.01", "softmax.map.02")),
        ("softmax", "2", "0,0", "from", ("softmax.map.02",)),
        ("reattention", "0,1", "all", "from", ("softmax.map.00", "reattention.map.01")),
    ],
)
def test_only_outputs_that_hold_the_selection_are_requested(
    stage: Stage, layer: str, query: str, direction: str, outputs: tuple[str, ...]
) -> None:
    assert select(stage, layer, "0", query, direction).outputs == outputs


@pytest.mark.parametrize(("query", "held_by"), [("cls", "class_rows"), ("0,0", "map.02")])
def test_without_reattention_both_stages_are_the_softmax(query: str, held_by: str) -> None:
    plain = manifest_of(CONFIG.model_copy(update={"reatten_blocks": ()}))
    selection = select("reattention", "2", query=query, manifest=plain)
    assert selection.outputs == (f"softmax.{held_by}",)


@pytest.mark.parametrize(
    ("parameters", "valid"),
    [
        ({"layer": "3"}, "layer must be all, rollout, or numbers from 0 to 2"),
        ({"layer": "-1"}, "numbers from 0 to 2"),
        ({"layer": ""}, "numbers from 0 to 2"),
        ({"layer": "0,"}, "numbers from 0 to 2"),
        ({"layer": "0,rollout"}, "numbers from 0 to 2"),
        ({"layer": "1.0"}, "numbers from 0 to 2"),
        ({"layer": "\u0661"}, "numbers from 0 to 2"),  # a digit, but not an ASCII one
        ({"layer": "9" * 5000}, "numbers from 0 to 2"),
        ({"layer": "rollout", "stage": "reattention"}, "add stage=softmax"),
        ({"head": "3"}, "head must be all, mean, max, max_abs, rms, or numbers from 0 to 2"),
        ({"head": "median"}, "head must be all, mean, max, max_abs, rms"),
        ({"query": "4,0"}, "query must be cls, all, or row,column from 0,0 to 3,3; not"),
        ({"query": "0,4"}, "row,column from 0,0 to 3,3"),
        ({"query": "0"}, "row,column from 0,0 to 3,3"),
        ({"query": "0,0,0"}, "row,column from 0,0 to 3,3"),
        ({"query": "0," + "9" * 5000}, "row,column from 0,0 to 3,3"),
        ({"direction": "both"}, "direction must be from or to"),
    ],
)
def test_invalid_parameters_are_refused_with_the_valid_ones(
    parameters: dict[str, str], valid: str
) -> None:
    defaults = {"stage": "softmax", "layer": "all", "head": "all", "query": "cls"}
    with pytest.raises(InvalidSelection, match=valid) as refusal:
        Selection.parse(MANIFEST, **{**defaults, "direction": "from", **parameters})  # type: ignore[arg-type]
    assert len(refusal.value.detail) < 200
