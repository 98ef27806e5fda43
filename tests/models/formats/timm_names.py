"""What timm's names of architectures say beyond tensors, and whether they are read right.

Run from the root of the project, in an environment that holds timm beside the project's packages:

    python -m tests.models.formats.timm_names write   # models/formats/timm_names.json
    python -m tests.models.formats.timm_names sweep   # tests/models/formats/timm_sweep.json

`write` builds every ViT of timm without weights and notes what its state dict does not tell.
`sweep` gives each one random weights, saves it as timm's training script does, reads the file and
compares the logits: read right, or refused and why. Networks are two blocks deep, where timm
allows it.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import nn

from models import checkpoint
from models.formats import timm_names
from models.formats.source import CheckpointError
from tests.models.formats import weights

SWEEP = Path(__file__).parent / "timm_sweep.json"
MODULES = (
    "beit",
    "deit",
    "eva",
    "naflexvit",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
# Parts that this project's network does not have, by the class that computes them, most telling
# first.
PARTS = {
    "VisionTransformerRelPos": "relative position biases",
    "Beit": "relative position biases (BEiT)",
    "VisionTransformerSAM": "windowed attention with relative positions (SAM)",
    "NaFlexVit": "positions for any aspect ratio (NaFlex)",
    "HybridEmbed": "a convolutional network in front of the ViT",
    "RotaryEmbeddingCat": "rotary position embeddings",
    "RotaryEmbeddingMixed": "rotary position embeddings",
    "RotaryEmbeddingDinoV3": "rotary position embeddings",
    "DiffAttention": "differential attention",
    "DiffParallelScalingBlock": "differential attention",
    "ParallelScalingBlock": "attention and MLP side by side",
    "ParallelThingsBlock": "parallel branches in a block",
    "ResPostBlock": "norms behind attention and MLP",
    "EvaBlockPostNorm": "norms behind attention and MLP",
    "SwiGLU": "a gated MLP",
    "GluMlp": "a gated MLP",
    "RmsNorm": "RMSNorm in place of LayerNorm",
}
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
POOLS = {"token": "cls", "avg": "mean_patches", "map": "attention"}


def names() -> list[str]:
    return [
        name
        for name in timm.list_models()
        if model_entrypoint(name).__module__.rpartition(".")[2] in MODULES
    ]


def facts(name: str) -> dict[str, Any]:
    """What the name says of the network and its preprocessing, or the part that is unsupported."""
    network = made(name, torch.device("meta"))
    classes = {type(module).__name__ for module in network.modules()}
    for kind, part in PARTS.items():
        if kind in classes:
            return {"unsupported": part}
    norms = {module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)}
    assert len(norms) == 1, (name, norms)
    (activation,) = {ACTIVATIONS[kind] for kind in classes if kind in ACTIVATIONS}
    block: Any = network.blocks[0]
    image, patch = network.patch_embed.img_size, network.patch_embed.patch_size
    found = {
        "img_size": image[0] if image[0] == image[1] else list(image),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "embed_dim": network.embed_dim,
        "num_heads": block.attn.num_heads,
        "layer_norm_eps": norms.pop(),
        "activation": activation,
        "pool": "cls_dist" if hasattr(network, "head_dist") else POOLS[network.global_pool],
    }
    if isinstance(network.norm, nn.Identity) and isinstance(network.fc_norm, nn.Identity):
        found["last_norm"] = False
    return found | preprocessing(network.pretrained_cfg)


def preprocessing(stated: dict[str, Any]) -> dict[str, Any]:
    squash = {"resize_mode": "both_sides"} if stated.get("crop_mode") == "squash" else {}
    kept = {key: stated[key] for key in ("mean", "std", "crop_pct", "interpolation")}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()} | squash


def made(name: str, device: torch.device, classes: int = 5) -> Any:
    with device:
        try:
            return timm.create_model(name, num_classes=classes, depth=2).eval()
        except (TypeError, AssertionError):
            return timm.create_model(name, num_classes=classes).eval()


def write() -> None:
    found = {name: facts(name) for name in names()}
    lines = (f" {json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    timm_names.FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def outcome(name: str, folder: Path) -> str:
    """`equal`, or why the file was refused."""
    path = folder / "model_best.pth.tar"
    network = made(name, torch.device("meta"))
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    torch.save(
        {"arch": name, "state_dict": {k: torch.zeros(()).expand(s) for k, s in shapes.items()}},
        path,
    )
    try:
        checkpoint.load(path)
    except CheckpointError as exc:
        return f"refused: {exc}"
    network = made(name, torch.device("cpu"))
    drawn = {key: torch.from_numpy(value) for key, value in weights.state_dict(shapes).items()}
    network.load_state_dict(drawn)
    torch.save({"arch": name, "state_dict": network.state_dict()}, path)
    found = checkpoint.load(path)
    images = torch.from_numpy(weights.random_images(found.config.img_size, batch=1))
    with torch.inference_mode():
        expected = network(images)
        difference = (found.network()(images) - expected).abs().max()
    return "equal" if difference <= 1e-3 * expected.abs().max() else f"wrong by {difference:.2g}"


def sweep() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        for name in names():
            found = outcome(name, Path(folder))
            print(f"{name}: {found}", flush=True)
            yield name, found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("write", "sweep"))
    if parser.parse_args().step == "write":
        write()
        return 0
    found = dict(sweep())
    record = {"timm": timm.__version__, "names": found}
    SWEEP.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    kinds = Counter(text.split()[0] for text in found.values())
    print(dict(kinds))
    return 1 if kinds["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
