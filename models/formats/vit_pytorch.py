"""vit-pytorch's DeepViT and plain ViT, in three generations of names, and its SimpleViT.

The generations differ in nesting (`fn.fn.`), in norms around the patch embedding, and in the place
of the last LayerNorm. Patches are flattened as (row, column, channel); qkv has no bias; Theta
is applied as A'[g] = sum over h of A[h] Theta[h, g], followed by a LayerNorm over heads.
"""

import math
import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from models.formats.source import UNSCALED, CheckpointError, File, Source, refuse
from models.size import Size

NAME = "vit-pytorch"

_LAYER = re.compile(r"transformer\.layers\.(\d+)\.([01])\.(?:fn\.)*(.+)")
_ATTENTION = {
    "norm": "norm1",
    "to_qkv": "attn.qkv",
    "to_out.0": "attn.proj",
    "to_out": "attn.proj",  # SimpleViT's, which has no bias
    "reattn_norm.1": "attn.var_norm",
}
_NESTED_MLP = {"norm": "norm2", "net.0": "mlp.fc1", "net.3": "mlp.fc2"}
_FLAT_MLP = {"net.0": "norm2", "net.1": "mlp.fc1", "net.4": "mlp.fc2"}
_SIMPLE_MLP = {"net.0": "norm2", "net.1": "mlp.fc1", "net.3": "mlp.fc2"}
_NORMED_PATCHES = {
    "to_patch_embedding.1": "patch_embed.norm1",
    "to_patch_embedding.2": "patch_embed.proj",
    "to_patch_embedding.3": "patch_embed.norm2",
}
_BARE_PATCHES = {"to_patch_embedding.1": "patch_embed.proj"}
_NORM_BEFORE_POOL = {"transformer.norm": "norm", "mlp_head": "head", "linear_head": "head"}
_NORM_AFTER_POOL = {"mlp_head.0": "norm", "mlp_head.1": "head"}


_UNSUPPORTED = {
    "patch_transformer.": "CaiT",
    "cls_transformer.": "CaiT",
    "to_cls_token.": "another network of vit-pytorch's",
}


def recognises(keys: set[str]) -> bool:
    return any(_LAYER.fullmatch(key) or key.startswith("to_patch_embedding.") for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with vit-pytorch's conventions. Raises `CheckpointError`."""
    refuse(file.tensors, _UNSUPPORTED)
    if file.img_size is None:
        raise CheckpointError(
            "vit-pytorch's files do not tell the input size, and its patches are flat: pass "
            "--img-size S or HEIGHTxWIDTH, and --patch-size if patches are not square"
        )
    given = file.tensors
    normed = any(f"to_patch_embedding.{index}.weight" in given for index in (2, 3))
    nested = any(re.search(r"\.1\.(fn\.)*norm\.weight$", key) for key in given)
    after = "mlp_head.1.weight" in given
    outer = {"cls_token": "cls_token", "pos_embedding": "pos_embed"}
    outer |= _NORMED_PATCHES if normed else _BARE_PATCHES
    outer |= _NORM_AFTER_POOL if after else _NORM_BEFORE_POOL
    simple = "linear_head.weight" in given
    mlp = _SIMPLE_MLP if simple else _NESTED_MLP if nested else _FLAT_MLP
    tensors = {_renamed(key, outer, mlp): value for key, value in given.items()}
    found = {_renamed(key, outer, mlp): key for key in given}
    mixing = any(key.endswith("reatten_matrix.weight") for key in tensors)
    notes = [
        *file.notes,
        "vit-pytorch has no preprocessing of its own: mean and std of 0.5 unless stated otherwise",
    ]
    _reshape(tensors, file.patch_size, notes)
    if simple:
        _complete_simple(tensors, file.img_size)
    class_token = "cls_token" in tensors
    if class_token:
        notes.append(
            "whether the head sees the class token or the mean of all tokens is not in the file: "
            "the class token unless stated otherwise"
        )
    if any(".reattn_norm." in key for key in given):
        notes.append(
            "a LayerNorm over heads stays in the graph: at the reattention stage, rows of a map do "
            "not sum to a constant"
        )
    _add_projection(tensors, notes)
    return Source(
        f"{NAME} {'DeepViT' if mixing else 'SimpleViT' if simple else 'ViT'}",
        tensors,
        partial(_original, found=found, outer=outer),
        arch=file.arch,
        stated_size=file.img_size,  # by the caller, in place of the file
        class_token=class_token,
        conventions={**UNSCALED, "layer_norm_eps": 1e-5},
        inferred={"norm_after_pool": after} | ({} if class_token else {"pool": "mean"}),
        labels=file.labels,
        notes=notes,
        advice=_advice(tensors),
    )


def _renamed(key: str, outer: Mapping[str, str], mlp: Mapping[str, str]) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    place, names, rest = "", outer, key
    if found := _LAYER.fullmatch(key):
        place, rest = f"blocks.{found[1]}.", found[3]
        names = mlp if found[2] == "1" else _ATTENTION
        if rest == "reattn_weights" and found[2] == "0":
            return f"{place}attn.reatten_matrix.weight"
    if rest in names:
        return place + names[rest]
    module, _, leaf = rest.rpartition(".")
    return f"{place}{names[module]}.{leaf}" if module in names else key


def _original(ours: str, found: Mapping[str, str], outer: Mapping[str, str]) -> str:
    """The name in the file; that of a missing tensor is derived from another block."""
    if ours in found:
        return found[ours]
    if block := re.fullmatch(r"blocks\.(\d+)(\..+)", ours):
        alike = (theirs for mine, theirs in found.items() if mine.endswith(block[2]))
        return re.sub(r"layers\.\d+", f"layers.{block[1]}", next(alike, ours))
    module, _, leaf = ours.rpartition(".")
    for theirs, mine in outer.items():
        if mine in (ours, module):
            return f"{theirs}.{leaf}" if module else theirs
    return ours


def _reshape(tensors: dict[str, Tensor], told: Size | None, notes: list[str]) -> None:
    """Tensors that vit-pytorch keeps flat; `told` is the patch size that the caller states."""
    for key in ("cls_token", "pos_embed"):
        if key in tensors:
            tensors[key] = tensors[key].reshape(1, -1, tensors[key].shape[-1])
    if "cls_token" in tensors and tensors["cls_token"].shape[1] == 0:
        del tensors["cls_token"]
    projection = tensors.get("patch_embed.proj.weight")
    if projection is not None and projection.ndim == 2:
        patch = told or _square_patch(projection.shape[1], notes)
        if projection.shape[1] != 3 * patch.area:
            raise CheckpointError(
                f"to_patch_embedding takes {projection.shape[1]} values, and an RGB patch of "
                f"{patch} has {3 * patch.area}"
            )
        flat = projection.reshape(len(projection), *patch, 3)
        tensors["patch_embed.proj.weight"] = flat.permute(0, 3, 1, 2)
    for key, theta in tensors.items():
        if key.endswith("reatten_matrix.weight") and theta.ndim == 2:
            tensors[key] = theta.T[:, :, None, None]  # ours is [H out, H in]


def _square_patch(values: int, notes: list[str]) -> Size:
    """Patches are flat in the file: 768 values are 16 x 16 or 8 x 32 pixels."""
    side = math.isqrt(values // 3)
    if 3 * side**2 != values:
        raise CheckpointError(
            f"to_patch_embedding takes {values} values, which is not a square RGB patch: say with "
            "--patch-size HEIGHTxWIDTH what it is"
        )
    notes.append(f"RGB patches of {side} x {side} assumed, which the file does not say")
    return Size.of(side)


def _complete_simple(tensors: dict[str, Tensor], img_size: Size) -> None:
    """SimpleViT computes its positions, and its projection has no bias."""
    projection = tensors.get("patch_embed.proj.weight")
    if projection is None or projection.ndim != 4:
        return
    grid = img_size // Size(*projection.shape[2:])
    tensors["pos_embed"] = _sines_and_cosines(grid, width=len(projection))
    for key in [key for key in tensors if key.endswith(".attn.proj.weight")]:
        tensors[key.replace("weight", "bias")] = torch.zeros(len(tensors[key]))


def _sines_and_cosines(grid: Size, width: int) -> Tensor:
    """Fixed positions [1, N, C] of columns and rows, in frequencies from 1 to 1 / 10,000."""
    quarter = width // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter) / (quarter - 1))
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    x, y = (along.flatten()[:, None] * frequencies for along in (columns, rows))
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), dim=1)[None]


def _add_projection(tensors: dict[str, Tensor], notes: list[str]) -> None:
    """Add an identity where one head as wide as the tokens leaves the projection out."""
    if any(".attn.proj." in key for key in tensors):
        return
    for key in [key for key in tensors if key.endswith(".attn.qkv.weight")]:
        width = tensors[key].shape[-1]
        layer = key.replace("qkv.weight", "proj")
        tensors |= {f"{layer}.weight": torch.eye(width), f"{layer}.bias": torch.zeros(width)}
    notes.append("no projection after attention (one head): the identity takes its place")


def _advice(tensors: Mapping[str, Tensor]) -> str | None:
    qkv = tensors.get("blocks.0.attn.qkv.weight")
    if qkv is None:
        return None
    width = len(qkv) // 3
    return f"all heads together are {width} wide; vit-pytorch's default is 64 for each head"
