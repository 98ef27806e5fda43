"""The command lines of all commands."""

import argparse
from pathlib import Path
from typing import Any, Literal

from models.collapse import THRESHOLD
from models.config import ARCHITECTURES
from models.manifest import NAME_RULE, is_model_name
from models.size import Size

# First arguments that are commands rather than a checkpoint, and the modules that run them.
COMMANDS = {
    "inspect": "export.describe",
    "report": "export.report.command",
    "reuse": "export.reuse.curve",
}
IMAGENET_1K = "imagenet-1k"


def export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a trained checkpoint as a model that can be served.",
        epilog="Other commands, each with its own --help: " + ", ".join(COMMANDS) + ".",
    )
    _add_reading(parser)
    parser.add_argument("--name", type=_model_name, required=True, help="the name that clients use")
    parser.add_argument(
        "--output", type=Path, default=Path("model_repository"), help="the model repository"
    )
    parser.add_argument(
        "--labels",
        help=f"a text file with one class name a line, or {IMAGENET_1K} for the built-in names",
    )
    parser.add_argument(
        "--max-batch-size", type=_positive, default=32, help="images in the largest batch"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="add a second classifier: fp16 for GPUs, or int8 for CPUs, calibrated on --images",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER|FILE",
        help="ordinary images, on which the monitor's normal values are measured; or a file of "
        "such values, measured before",
    )
    measured = parser.add_argument_group("int8 and attention reuse (later blocks share one map)")
    measured.add_argument(
        "--reuse-attention",
        type=_donor,
        metavar="BLOCK|auto",
        help="the block that shares its map; auto takes the first whose later blocks have all "
        "collapsed",
    )
    measured.add_argument(
        "--force",
        action="store_true",
        help="share the map even if blocks have not collapsed; keep int8 even if answers differ",
    )
    _add_images(measured)
    return parser


def reuse_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export reuse",
        description="Measure what attention reuse costs and saves, with each block as donor.",
    )
    _add_reading(parser)
    _add_images(parser, required=True)
    parser.add_argument(
        "--donors", type=_blocks, metavar="BLOCK[,BLOCK...]", help="all but the last by default"
    )
    parser.add_argument("--output", type=Path, default=Path("reuse"), help="a folder")
    return parser


def report_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export report",
        description="Report what attention does over many images.",
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        help="the name of an exported model; repeat the flag to compare several",
    )
    _add_images(parser, required=True)
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=THRESHOLD,
        help="blocks are similar above this cosine",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="the model repository"
    )
    parser.add_argument("--output", type=Path, default=Path("report"), help="a folder")
    return parser


def inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export inspect", description="Show what is recognised in a checkpoint."
    )
    _add_reading(parser)
    return parser


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line states about the checkpoint, as `checkpoint.load` takes it."""
    return {key: getattr(options, key) for key in ("head", *_FACTS)}


def _floats(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _size(text: str) -> Size:
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError("not one number, or height and width as in 224x288")
    return Size.of(int(text)) if len(parts) == 1 else Size(*map(int, parts))


_FACTS: dict[str, dict[str, Any]] = {
    "num_heads": {"type": int, "help": "attention heads; needed where no block mixes heads"},
    "pool": {
        "choices": ("cls", "cls_mean", "mean", "mean_patches"),
        "help": "what the classifier head sees: the class token, a mean of tokens, or both",
    },
    "reatten_scale": {"type": float, "help": "factor on a map after mixing and norm"},
    "scale_adjustment": {"type": float, "help": "a in x += f(norm(a x)) / a"},
    "softmax_temperatures": {
        "type": _floats,
        "metavar": "T[,T...]",
        "help": "divisor of the attention logits: one for all blocks, or one for each",
    },
    "layer_norm_eps": {"type": float, "help": "1e-6 in every published DeepViT"},
    "img_size": {
        "type": _size,
        "metavar": "S|HEIGHTxWIDTH",
        "help": "the input size, where the file does not tell it; or another one, for which "
        "positions are interpolated",
    },
    "patch_size": {
        "type": _size,
        "metavar": "S|HEIGHTxWIDTH",
        "help": "of vit-pytorch's networks, if patches are not square",
    },
    "activation": {
        "choices": ("gelu", "gelu_tanh", "quick_gelu"),
        "help": "of the MLPs, where neither the file nor its architecture's name tells",
    },
    "scores": {
        "choices": ("softmax", "sigmoid"),
        "help": "softmax where exactly one class is right, sigmoid where each is right or not",
    },
    "mean": {"type": _floats, "metavar": "R,G,B", "help": "mean of pixels between 0 and 1"},
    "std": {"type": _floats, "metavar": "R,G,B", "help": "their standard deviation"},
    "crop_pct": {"type": float, "help": "share of the resized image that the crop keeps"},
    "interpolation": {
        "choices": ("bicubic", "bilinear", "nearest", "lanczos"),
        "help": "filter of the resizing",
    },
    "resize_mode": {
        "choices": ("shorter_side", "both_sides"),
        "help": "both_sides does not keep the proportions",
    },
}


def _add_images(parser: argparse._ActionsContainer, required: bool = False) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=required,
        help="a folder of images to measure on; accuracy needs a folder for each class in it",
    )
    parser.add_argument(
        "--limit",
        type=_positive,
        help="the most images to read, evenly spread over the sorted paths",
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        help=".pth, .pth.tar, .bin or .safetensors file, or a Hugging Face model folder",
    )
    parser.add_argument(
        "--arch", metavar="NAME", help=f"one of {', '.join(ARCHITECTURES)}, or a name of timm's"
    )
    parser.add_argument(
        "--head",
        type=Path,
        help="a file with a linear head or text embeddings, for a network without a classifier",
    )
    for key, settings in _FACTS.items():
        parser.add_argument(f"--{key.replace('_', '-')}", **settings)


def _model_name(text: str) -> str:
    if not is_model_name(text):
        raise argparse.ArgumentTypeError(f"not the name of a model: {NAME_RULE}")
    return text


def _donor(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else _block(text)


def _blocks(text: str) -> tuple[int, ...]:
    return tuple(map(_block, text.split(",")))


def _block(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("not the number of a block, counted from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("not a whole number of at least 1")
    return int(text)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("not a number between 0 and 1")
    return value
