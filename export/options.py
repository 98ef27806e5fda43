"""The command line: how a checkpoint is to be read, and what is to be written."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from models.config import ARCHITECTURES

IMAGENET_1K = "imagenet-1k"


def export_parser(commands: Iterable[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="A trained checkpoint to a served model.",
        epilog=f"In place of a checkpoint, with flags of their own: {', '.join(commands)}.",
    )
    _add_reading(parser)
    parser.add_argument("--name", type=_model_name, required=True, help="what clients ask for")
    parser.add_argument("--output", type=Path, default=Path("model_repository"))
    parser.add_argument(
        "--labels", help=f"a text file, one class name a line, or {IMAGENET_1K} for those built in"
    )
    parser.add_argument("--max-batch-size", type=_positive, default=32)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="a second classifier: fp16 for GPUs; int8 for processors, scaled to --images",
    )
    reuse = parser.add_argument_group("attention reuse: later blocks share the map of one")
    reuse.add_argument(
        "--reuse-attention",
        type=_donor,
        metavar="BLOCK|auto",
        help="the block whose map is shared; auto takes the first after which all have collapsed",
    )
    reuse.add_argument(
        "--force",
        action="store_true",
        help="share also with blocks that have not collapsed; keep int8 whatever it answers",
    )
    _add_images(reuse)
    return parser


def reuse_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export reuse",
        description="Attention reuse with every block as donor: what it costs, what it saves.",
    )
    _add_reading(parser)
    _add_images(parser, required=True)
    parser.add_argument(
        "--donors", type=_blocks, metavar="BLOCK[,BLOCK...]", help="all blocks if left out"
    )
    parser.add_argument("--output", type=Path, default=Path("reuse"), help="a folder")
    return parser


def inspect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export inspect", description="What is recognised in a checkpoint."
    )
    _add_reading(parser)
    return parser


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The facts told on the command line, as `checkpoint.load` takes them."""
    return {key: getattr(options, key) for key in _FACTS}


def _floats(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


_FACTS: dict[str, dict[str, Any]] = {
    "num_heads": {"type": int, "help": "where no block mixes heads, the tensors do not tell"},
    "pool": {
        "choices": ("cls", "mean", "mean_patches"),
        "help": "what the head sees",
    },
    "reatten_scale": {"type": float, "help": "factor on the mixed and normed map"},
    "scale_adjustment": {"type": float, "help": "the a of x += f(norm(a x)) / a"},
    "softmax_temperatures": {
        "type": _floats,
        "metavar": "T[,T...]",
        "help": "what divides attention logits, for all blocks or one a block",
    },
    "layer_norm_eps": {"type": float, "help": "1e-6 in every published DeepViT"},
    "img_size": {"type": int, "help": "another input size: positions are interpolated"},
    "mean": {"type": _floats, "metavar": "R,G,B", "help": "of pixels between 0 and 1"},
    "std": {"type": _floats, "metavar": "R,G,B"},
    "crop_pct": {"type": float, "help": "share of the resized picture that is kept"},
    "interpolation": {"choices": ("bicubic", "bilinear", "nearest", "lanczos")},
    "resize_mode": {"choices": ("shorter_side", "both_sides")},
}


def _add_images(parser: argparse._ActionsContainer, required: bool = False) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=required,
        help="a folder to measure on, with a folder for each class if accuracy is wanted",
    )
    parser.add_argument(
        "--limit", type=_positive, help="images at most, evenly spread over the sorted paths"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        help=".pth, .pth.tar, .bin or .safetensors, or a folder as Hugging Face lays it out",
    )
    parser.add_argument("--arch", metavar="NAME", help=f"one of {', '.join(ARCHITECTURES)}")
    for key, how in _FACTS.items():
        parser.add_argument(f"--{key.replace('_', '-')}", **how)


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError("letters, digits, '.', '_' and '-', at most 64")
    return text


def _donor(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else _block(text)


def _blocks(text: str) -> tuple[int, ...]:
    return tuple(map(_block, text.split(",")))


def _block(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("the number of a block, from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)
