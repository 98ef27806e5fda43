"""Do the graphs in ONNX Runtime compute what the network in PyTorch computes?"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from export.graphs import Inside
from export.sessions import cpu_session
from models.arrays import Float32Array, Pixels
from models.deepvit import DeepViT
from models.manifest import Comparison, Manifest, Parity
from models.normalize import normalize as normalize_values
from models.preprocess import Preprocessing
from models.size import Size

Graph = Literal["model", "model.fp16", "explain"]

# The largest difference allowed, as a share of the reference's largest value.
# The norm's gain magnifies rounding in a mixed map, and the cosine of two nearly empty columns
# magnifies it again; means over heads and tokens do not.
_TOLERANCE = {"logits": 1e-4, "map": 2e-4, "class_rows": 2e-4, "neighbour_similarity": 2e-2}
_MEASURES = 5e-4
_HALF = 2e-2  # for everything that is computed in float16
_AGREEMENT = 0.99  # share of images that int8 gives the same class as the exact classifier


class VerificationError(Exception):
    """The exported model does not compute what the network computes."""


def verify(
    folder: Path,
    network: DeepViT,
    manifest: Manifest,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Parity, ...]:
    """Compare every graph with the network as trained, at batches of 1, 2 and the largest.

    The network computes in float64: in float32, a deep network with near-uniform maps may be
    further from the truth than the graphs are.
    Raises `VerificationError`, which names every output beyond its tolerance.
    """
    found: list[Parity] = []
    exact = copy.deepcopy(network).double()
    largest: dict[Graph, int] = {
        "model": manifest.max_batch_size,
        "model.fp16": manifest.max_batch_size,
        "explain": manifest.max_explain_batch_size,
    }
    for graph in largest:
        if not (folder / f"{graph}.onnx").exists():
            continue
        session = cpu_session(folder / f"{graph}.onnx")
        for batch in sorted({1, 2, largest[graph]}):
            progress(f"{graph}.onnx at batch {batch}")
            images = sample_images(batch, manifest.preprocessing.size)
            reference = _reference(exact, images, manifest.preprocessing, graph)
            names = [output.name for output in session.get_outputs()]
            answers = dict(zip(names, session.run(names, {"images": images}), strict=True))
            found += _compare(graph, batch, reference, answers, manifest)
    beyond = [row for row in found if not row.max_abs_difference <= row.tolerance]
    if beyond:
        worst = "; ".join(
            f"{row.graph} {row.output} at batch {row.batch}: "
            f"{row.max_abs_difference:.2g} > {row.tolerance:.2g}"
            for row in beyond
        )
        raise VerificationError(f"ONNX Runtime differs from PyTorch: {worst}")
    return tuple(found)


def verify_int8(found: Comparison) -> None:
    """Raises `VerificationError` if more than one image in a hundred gets another class.

    Logits have no tolerance here, because how far rounding moves them depends on the images.
    """
    if found.agreement < _AGREEMENT:
        raise VerificationError(
            f"int8 gives {found.agreement:.2%} of {found.images:,} images the class of the exact "
            f"classifier, and at least {_AGREEMENT:.0%} is required; --force keeps it anyway"
        )


def sample_images(batch: int, size: Size) -> Pixels:
    """Images [B, height, width, 3], half of them noise and half smooth, the same on every call."""
    generator = torch.Generator().manual_seed(batch)
    noise = torch.rand((batch, 3, *size), generator=generator)
    coarse = torch.rand((batch, 3, 4, 4), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    noise[::2] = smooth[::2]
    pixels: Pixels = (noise * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def normalize(images: Pixels, rule: Preprocessing) -> Tensor:
    """uint8 [B, *S, 3] to float32 [B, 3, *S], which the network was trained on."""
    return normalize_values(torch.tensor(images).permute(0, 3, 1, 2) / 255, rule)


@torch.inference_mode()
def _reference(
    network: DeepViT,
    images: Pixels,
    rule: Preprocessing,
    graph: Graph,
) -> dict[str, Tensor]:
    normalized = normalize(images, rule).double()
    if graph != "explain":
        return {"logits": network(normalized)}
    logits, traces = network.trace(normalized)
    inside = Inside(network.config)
    for trace in traces:
        inside.add(trace)
    return {"logits": logits, **inside.values()}


def _compare(
    graph: Graph,
    batch: int,
    reference: dict[str, Tensor],
    answers: dict[str, Float32Array],
    manifest: Manifest,
) -> Iterator[Parity]:
    measures = {output.name: output.measure for output in manifest.outputs}
    for name, expected in reference.items():
        answer = torch.from_numpy(answers[name])
        share = _HALF if graph == "model.fp16" else _TOLERANCE.get(measures[name], _MEASURES)
        scale = expected.abs().max().item() if expected.numel() else 1.0
        difference = (answer - expected).abs().max().item() if expected.numel() else 0.0
        yield Parity(
            graph=graph,
            output=name,
            batch=batch,
            max_abs_difference=difference,
            tolerance=scale * share,
        )
