"""Writes the results of the official DeepViT code that the parity tests compare with.

Run from the root of the project, with a checkout of the official repository:

    python -m tests.models.official.generate PATH_TO_DVIT_REPO [--check]

`--check` also runs every network in double precision and prints how far apart the two runs are,
which is the accuracy that a comparison in single precision may ask for.
"""

import argparse
import collections.abc
import importlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import weights

ARCHITECTURES = {
    "deepvit_patch16_224_re_attn_16b": 224,
    "deepvit_patch16_224_re_attn_24b": 224,
    "deepvit_patch16_224_re_attn_32b": 224,
    "deepvit_S": 224,
    "deepvit_L": 224,
    "deepvit_L_384": 384,
}

# What the official code imports on the way to its networks without using it in them: a module
# that torch has since dropped, a package of image transforms, and data loading.
_STUBS: dict[str, dict[str, object]] = {
    "torch._six": {
        "container_abcs": collections.abc,
        "int_classes": int,
        "string_classes": str,
    },
    "torchvision": {},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {},
    "lib_deit": {},
    "lib_deit.samplers": {"RASampler": object},
    "timm.data.lmdb_dataset": {"ImageFolderLMDB": object},
}


def import_official(checkout: Path) -> ModuleType:
    """Imports the package `models` of the official repository, not the project's own."""
    for name, members in _STUBS.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout))
    official = importlib.import_module("models")
    for name in ("models", "timm"):
        origin = sys.modules[name].__file__
        if origin is None or not Path(origin).resolve().is_relative_to(checkout):
            raise ImportError(f"package {name!r} came from {origin}, not from {checkout}")
    return official


@dataclass
class Run:
    """What one forward pass gave: logits [B, 1000], and maps [B, H, N, N] block by block."""

    logits: Tensor
    softmax: list[Tensor]
    attention: list[Tensor]


def run(network: nn.Module, images: Tensor) -> Run:
    """Runs `network` and catches each block's attention before and after Re-attention."""
    mixed: dict[int, Tensor] = {}
    attention: list[Tensor] = []

    def after_block(_: nn.Module, __: object, output: tuple[Tensor, Tensor]) -> None:
        attention.append(output[1])

    def before_mixing(_: nn.Module, inputs: tuple[Tensor]) -> None:
        mixed[len(attention)] = inputs[0]

    blocks: Any = network.blocks
    hooks = []
    for block in blocks:
        hooks.append(block.register_forward_hook(after_block))
        if block.attn.apply_transform:
            hooks.append(block.attn.reatten_matrix.register_forward_pre_hook(before_mixing))
    with torch.inference_mode():
        logits = network(images)
    for hook in hooks:
        hook.remove()
    softmax = [mixed.get(index, plain) for index, plain in enumerate(attention)]
    return Run(logits, softmax, attention)


def build(official: ModuleType, name: str) -> nn.Module:
    """Builds an official network in evaluation mode with the weights of this package."""
    network: nn.Module = getattr(official, name)()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    state = weights.state_dict(shapes)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return network.eval()


def to_arrays(network: nn.Module, result: Run) -> dict[str, weights.Array]:
    """Chooses what is stored of a run."""
    softmax = [block.numpy() for block in result.softmax]
    attention = [block.numpy() for block in result.attention]
    return {
        "logits": result.logits.numpy(),
        "parameters": np.array(sum(parameter.numel() for parameter in network.parameters())),
        "softmax": np.stack([weights.sample(block) for block in softmax]),
        "attention": np.stack([weights.sample(block) for block in attention]),
        "softmax_probe": np.stack([weights.probe(block) for block in softmax]),
        "attention_probe": np.stack([weights.probe(block) for block in attention]),
    }


def relative_entropy(softmax: Tensor) -> float:
    """Returns the mean entropy of a map's rows as a share of a uniform row's."""
    entropy = -torch.xlogy(softmax, softmax).sum(-1).mean()
    return entropy.item() / math.log(softmax.shape[-1])


def check(single: Run, double: Run, arrays: tuple[dict[str, weights.Array], ...]) -> None:
    """Prints how a run in single precision differs from one in double precision."""
    entropies = [relative_entropy(block) for block in single.softmax]
    print(
        f"  logits: standard deviation {single.logits.std().item():.2f}, "
        f"largest {single.logits.abs().max().item():.2f}, largest difference between images "
        f"{(single.logits[0] - single.logits[1]).abs().max().item():.2f}\n"
        f"  entropy of softmax rows over log N: mean {np.mean(entropies):.2f}, "
        f"by block {min(entropies):.2f} to {max(entropies):.2f}"
    )
    for name in ("softmax", "attention"):
        maps: list[Tensor] = getattr(single, name)
        exact: list[Tensor] = getattr(double, name)
        error = max((a - b).abs().max().item() for a, b in zip(maps, exact, strict=True))
        largest = max(block.abs().max().item() for block in maps)
        deviation = np.mean([block.std().item() for block in maps])
        print(
            f"  {name}: standard deviation {deviation:.3f}, largest {largest:.2f}, "
            f"error {error:.1e}"
        )
    print(f"  logits: error {(single.logits - double.logits).abs().max().item():.1e}")
    for name in ("softmax", "attention", "softmax_probe", "attention_probe"):
        stored, exact_stored = arrays[0][name], arrays[1][name]
        error = float(np.abs(stored - exact_stored).max())
        print(f"  stored {name}: largest {np.abs(stored).max():.2f}, error {error:.1e}")


def main() -> None:
    """Writes one file for each architecture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="the official repository")
    parser.add_argument("--check", action="store_true", help="compare with double precision")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder for the files"
    )
    parser.add_argument(
        "--only", choices=ARCHITECTURES, nargs="*", default=list(ARCHITECTURES), metavar="NAME"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    official = import_official(arguments.checkout.resolve())
    for name in arguments.only:
        start = time.perf_counter()
        network = build(official, name)
        images = torch.from_numpy(weights.random_images(ARCHITECTURES[name]))
        result = run(network, images)
        arrays = to_arrays(network, result)
        path = arguments.output / f"{name}.npz"
        np.savez_compressed(path, allow_pickle=False, **arrays)
        print(
            f"{name}: {arrays['parameters']} parameters, {path.stat().st_size} bytes, "
            f"{time.perf_counter() - start:.1f} s"
        )
        if arguments.check:
            exact = run(network.double(), images.double())
            check(result, exact, (arrays, to_arrays(network, exact)))


if __name__ == "__main__":
    main()
