"""`python -m export inspect CHECKPOINT`: what is recognised in a checkpoint, in words."""

import sys
from collections.abc import Iterator

from export.options import inspect_parser, overrides
from models import checkpoint
from models.checkpoint import Checkpoint
from models.config import DeepViTConfig

_POOLS = {
    "cls": "the class token",
    "cls_dist": "the class token and the distillation token, side by side",
    "cls_mean": "the class token beside the mean of the patches",
    "mean": "the mean of all tokens",
    "mean_patches": "the mean of the patches",
    "attention": "what a learned query finds in the patches",
}


def main(arguments: list[str]) -> int:
    """Exit status 0, or 1 with one line that says what to do."""
    options = inspect_parser().parse_args(arguments)
    try:
        source = checkpoint.load(options.checkpoint, options.arch, **overrides(options))
    except (checkpoint.CheckpointError, OSError) as exc:
        print(f"export inspect: {exc}", file=sys.stderr)
        return 1
    print("\n".join(describe(source)))
    return 0


def describe(source: Checkpoint) -> Iterator[str]:
    """Lines on the format, the input, every block, the head, and what was assumed."""
    config, rule = source.config, source.preprocessing
    parameters = sum(value.numel() for value in source.weights.values())
    yield f"format         {source.format}" + (f", {source.arch}" if source.arch else "")
    yield f"parameters     {parameters:,}"
    yield (
        f"preprocessing  RGB, {_resize(source)} with {rule.interpolation} filter, "
        f"crop to {rule.size}, mean {_numbers(rule.mean)}, std {_numbers(rule.std)}"
    )
    yield f"embedding      {_embedding(config)}"
    for index in range(config.depth):
        yield f"block {index:02}       {_block(config, index)}"
    yield f"head           {_head(config)}"
    yield f"labels         {_labels(source.labels)}"
    for note in source.notes:
        yield f"note           {note}"


def _resize(source: Checkpoint) -> str:
    rule = source.preprocessing
    if rule.resize_mode == "both_sides":
        return f"both sides resized to {rule.resize}"
    if rule.resize.is_square:
        return f"shorter side resized to {rule.resize.side}"
    return f"resized to cover {rule.resize}"


def _embedding(config: DeepViTConfig) -> str:
    stem = "conv stem" if config.stem == "conv" else "one convolution"
    norms = " between LayerNorms" if config.patch_norm else ""
    before = ["class token"] if config.class_token else []
    if config.pool == "cls_dist":
        before.append("distillation token")
    if more := config.prefix_tokens - len(before):
        before.append(f"{more} more token{'s' if more > 1 else ''}")
    tokens = f" after {' and '.join(before)}" if before else ", no class token"
    pre = ", then LayerNorm" if config.norm_pre else ""
    return (
        f"{config.grid} patches of {config.patch_size} pixels ({stem}{norms}){tokens}, "
        f"width {config.embed_dim}{pre}"
    )


def _block(config: DeepViTConfig, index: int) -> str:
    attention = f"{config.num_heads} heads of {config.head_dim}"
    if not config.qkv_bias:
        attention += ", no bias in qkv"
    if config.softmax_temperatures:
        attention += f", temperature {config.softmax_temperatures[index]:g}"
    kind = "attention"
    if index in config.reatten_blocks:
        kind = "re-attention"
        attention += f", {_norm(config)} over heads"
        if config.reatten_scale != 1:
            attention += f", times {config.reatten_scale:.4g}"
    adjusted = f", adjusted by {config.scale_adjustment:g}" if config.scale_adjustment != 1 else ""
    activation = f" with {config.activation}" if config.activation != "gelu" else ""
    return f"{kind} ({attention}), MLP of {config.mlp_dim}{activation}{adjusted}"


def _head(config: DeepViTConfig) -> str:
    order = "pooled, then LayerNorm" if config.norm_after_pool else "LayerNorm, then pooled"
    norm = order if config.last_norm else "no LayerNorm"
    classes = f"{config.num_classes} class{'es' if config.num_classes > 1 else ''}"
    return f"{_POOLS[config.pool]} ({norm}) to {classes}, {config.scores}"


def _norm(config: DeepViTConfig) -> str:
    if config.reatten_layer_norm:
        return "LayerNorm (stays in the graph)"
    return "BatchNorm (folded)" if config.reatten_norm else "no norm"


def _labels(labels: tuple[str, ...] | None) -> str:
    if labels is None:
        return "none: classes are numbered, unless --labels names them"
    shown = ", ".join(labels[:3])
    return shown + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
