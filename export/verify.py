"""Do the graphs in ONNX Runtime compute what the network in PyTorch computes?"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from export.conditioning import Conditioning
from export.graphs import Inside
from export.progress import Throttle
from export.sessions import cpu_session
from models.arrays import Pixels
from models.deepvit import DeepViT
from models.manifest import Comparison, Graph, Manifest, Parity, Undefined
from models.normalize import normalize as normalize_values
from models.preprocess import Preprocessing
from models.size import Size
from models.stages import Stage

# The largest difference allowed, as a share of the reference's largest value.
# The norm's gain magnifies rounding in a mixed map; means over heads and tokens do not.
_TOLERANCE = {"logits": 1e-4, "map": 2e-4, "class_rows": 2e-4}
_MEASURES = 5e-4
_HALF = 2e-2  # for everything that is computed in float16
_AGREEMENT = 0.99  # share of images that int8 gives the same class as the exact classifier
_PROGRESS_S = 2.0
_IMAGES = 5  # different ones; larger batches repeat them

Outputs = Mapping[str, Tensor]


class VerificationError(Exception):
    """The exported model does not compute what the network computes."""


@dataclass(frozen=True)
class Verified:
    parity: tuple[Parity, ...]
    undefined: tuple[Undefined, ...]  # measures that are rounding noise


def verify(
    folder: Path,
    network: DeepViT,
    manifest: Manifest,
    progress: Callable[[str], None] = lambda _: None,
) -> Verified:
    """Compare every graph with the network as trained, at batches of 1, 2 and the largest served.

    The network computes in float64, one image at a time: in float32, a deep network with
    near-uniform maps may be further from the truth than the graphs are.
    Raises `VerificationError`, which names every output beyond its tolerance.
    """
    tell = Throttle(progress, _PROGRESS_S)
    check = _Check(folder, copy.deepcopy(network).double(), manifest, tell)
    parity = list(check.rows())
    beyond = [row for row in parity if not row.max_abs_difference <= row.tolerance]
    if beyond:
        worst = "; ".join(
            f"{row.graph} {row.output} at batch {row.batch}: "
            f"{row.max_abs_difference:.2g} > {row.tolerance:.2g}"
            for row in beyond
        )
        raise VerificationError(f"ONNX Runtime differs from PyTorch: {worst}")
    undefined = (
        Undefined(stage=stage, measure=measure, blocks=tuple(sorted(blocks)))
        for (stage, measure), blocks in check.undefined.items()
    )
    return Verified(tuple(parity), tuple(undefined))


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


class _Check:
    """The graphs of a folder against one network, on the same few images."""

    def __init__(
        self,
        folder: Path,
        exact: DeepViT,
        manifest: Manifest,
        progress: Callable[[str], None],
    ) -> None:
        self.undefined: dict[tuple[Stage, str], set[int]] = {}
        self._folder = folder
        self._exact = exact
        self._manifest = manifest
        self._progress = progress
        self._images = sample_images(_IMAGES, manifest.preprocessing.size)

    @torch.inference_mode()
    def rows(self) -> Iterator[Parity]:
        """All graphs that the folder has."""
        classified, explained = self._manifest.max_batch_size, self._manifest.max_explain_batch_size
        references = []
        for index in range(min(_IMAGES, max(classified, explained))):
            self._progress(f"PyTorch's answers for image {index + 1}, in double precision")
            references.append(self._inside(index))
        logits = [{"logits": reference["logits"]} for reference in references]
        graphs: tuple[Graph, ...] = ("model", "model.fp16")
        for graph in graphs:
            if (self._folder / f"{graph}.onnx").exists():
                yield from self._compare(graph, classified, logits)
        yield from self._compare("explain", explained, references)

    def _normalized(self, index: int) -> Tensor:
        return normalize(self._images[index : index + 1], self._manifest.preprocessing).double()

    def _inside(self, index: int) -> Outputs:
        """All outputs of the explain graph for one image."""
        logits, traces = self._exact.trace(self._normalized(index))
        inside = Inside(self._exact.config)
        for trace in traces:
            inside.add(trace)
        return {"logits": logits, **inside.values()}

    def _compare(
        self, graph: Graph, largest: int, references: Sequence[Outputs]
    ) -> Iterator[Parity]:
        """One row for each output and batch: where it is nearest to its tolerance, or beyond."""
        session = cpu_session(self._folder / f"{graph}.onnx")
        names = [output.name for output in session.get_outputs()]
        for batch in sorted({1, min(2, largest), largest}):
            self._progress(f"{graph}.onnx at batch {batch}")
            chosen = [index % len(references) for index in range(batch)]
            answers = session.run(names, {"images": self._images[chosen]})
            worst: dict[str, Parity] = {}
            for index, which in enumerate(chosen):
                one = {
                    name: torch.from_numpy(values[index : index + 1])
                    for name, values in zip(names, answers, strict=True)
                }
                for row in self._rows(graph, batch, references[which], one):
                    before = worst.setdefault(row.output, row)
                    if _nearness(row) > _nearness(before):
                        worst[row.output] = row
            yield from worst.values()

    def _rows(
        self, graph: Graph, batch: int, reference: Outputs, answer: Outputs
    ) -> Iterator[Parity]:
        """Every output for one image, at the entry that is nearest to its tolerance."""
        slack: Outputs = {}
        if graph == "explain":
            cosines = Conditioning(reference, answer, self._manifest)
            slack = cosines.slack
            for key, blocks in cosines.undefined.items():
                self.undefined.setdefault(key, set()).update(blocks)
        measures = {output.name: output.measure for output in self._manifest.outputs}
        for name, expected in reference.items():
            share = _HALF if graph == "model.fp16" else _TOLERANCE.get(measures[name], _MEASURES)
            difference, tolerance = 0.0, share
            if expected.numel():
                allowed = share * expected.abs().max() + slack.get(name, 0.0)
                apart = (answer[name] - expected).abs()
                at = int((apart / allowed).nan_to_num(torch.inf).argmax())
                difference = float(apart.flatten()[at])
                tolerance = float(allowed.expand_as(apart).flatten()[at])
            yield Parity(
                graph=graph,
                output=name,
                batch=batch,
                max_abs_difference=difference,
                tolerance=tolerance,
            )


def _nearness(row: Parity) -> float:
    """Above 1 beyond the tolerance; NaN, which no tolerance allows, counts as infinite."""
    if not row.tolerance:
        return 0.0 if row.max_abs_difference == 0 else math.inf
    nearness = row.max_abs_difference / row.tolerance
    return math.inf if math.isnan(nearness) else nearness
