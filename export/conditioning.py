"""How far maps and their cosines may be off, because what they are computed from is rounded.

A mixed map A' = M A + b is off by |M| times the error of the map before the mixing, and a norm
over near-uniform maps makes M large. A cosine of two vectors changes by at most the sum of their
relative errors. Centring leaves little of a column of a near-uniform map, so that the same rounding
is a larger share of what is left; where only rounding is left, the cosine says nothing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.manifest import Manifest
from models.stages import Stage, stages

_ROUNDING = 8 * 2.0**-23  # of sums of float32 numbers, relative to the length of a vector
_NOISE = 0.1  # a mean relative error above which a measure is not defined


class Conditioning:
    """Of one image: its outputs in PyTorch and in ONNX Runtime, each with a batch of 1.

    Shapes: L blocks, H heads, N tokens.
    """

    def __init__(
        self, reference: Mapping[str, Tensor], answer: Mapping[str, Tensor], manifest: Manifest
    ) -> None:
        self._manifest = manifest
        self.slack: dict[str, Tensor] = {}  # by output, in its shape
        self.undefined: dict[tuple[Stage, str], list[int]] = {}
        self._add_mixed_maps(reference, answer)
        for stage in stages(manifest.config):
            self._add_cosines(stage, reference, answer)

    def _add_mixed_maps(
        self, reference: Mapping[str, Tensor], answer: Mapping[str, Tensor]
    ) -> None:
        rows = []
        for block in range(self._manifest.config.depth):
            name = self._manifest.output("map", "softmax", block).name
            exact, found = reference[name][0], answer[name][0]  # [H, N, N]
            error = (found - exact).abs() + _ROUNDING * exact.abs()
            mixing = next((one for one in self._manifest.reattention if one.block == block), None)
            if mixing is not None and mixing.gain is None:
                matrix = torch.tensor(mixing.matrix, dtype=error.dtype).abs()
                error = (matrix @ error.flatten(1)).reshape(error.shape)
                self.slack[self._manifest.output("map", "reattention", block).name] = error
            rows.append(error[:, 0])
        if self._manifest.reattention and self._manifest.config.class_token:
            self.slack["reattention.class_rows"] = torch.stack(rows)  # [L, H, N]

    def _add_cosines(
        self, stage: Stage, reference: Mapping[str, Tensor], answer: Mapping[str, Tensor]
    ) -> None:
        columns, rows, centred = [], [], []
        for block in range(self._manifest.config.depth):
            name = self._manifest.output("map", stage, block).name
            exact, found = reference[name][0], answer[name][0]  # [H, N, N]
            columns.append(_relative_error(exact, found, exact))
            rows.append(_relative_error(exact.mT, found.mT, exact.mT))
            apart = exact - exact.mean(dim=-2, keepdim=True)
            centred.append(_relative_error(exact, found, apart))
        by_variant = {"column": columns, "row": rows, "centred": centred}
        for variant, errors in by_variant.items():
            mean = torch.stack([error.mean() for error in errors])  # [L]
            measure = f"similarity.{variant}"
            self.slack[f"{stage}.{measure}"] = mean[:, None] + mean
            noisy = [block for block, error in enumerate(mean.tolist()) if error > _NOISE]
            if noisy:
                self.undefined[stage, measure] = noisy
        each = torch.stack(columns)  # [L, H, N]
        self.slack[f"{stage}.neighbour_similarity"] = each[1:] + each[:-1]
        by_head = each.mean(dim=-1)  # [L, H]
        self.slack[f"{stage}.head_similarity"] = by_head[:, :, None] + by_head[:, None]


def _relative_error(exact: Tensor, found: Tensor, used: Tensor) -> Tensor:
    """Of each column over queries [H, N], at most 1, relative to the length of what is `used`."""
    error = (found - exact).norm(dim=-2) + _ROUNDING * exact.norm(dim=-2)
    relative: Tensor = error / used.norm(dim=-2)
    return relative.nan_to_num(1.0).clamp_max(1.0)
