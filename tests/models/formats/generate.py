"""Writes the results of timm, transformers, torchvision and vit-pytorch for the parity tests.

Run from the root of the project, in an environment of its own that holds the code bases:

    python -m tests.models.formats.generate timm hugging_face open_clip torchvision vit_pytorch

vit-pytorch has named its tensors in three ways: run `vit_pytorch` once with each of the
versions in README.md. Networks are small; their shapes are what differs.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from . import weights

SIZE = 32
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}


class Case(NamedTuple):
    name: str
    network: nn.Module
    flags: dict[str, Any] = {}  # noqa: RUF012  # what the file does not tell
    files: dict[str, str] = {}  # noqa: RUF012  # JSON beside the weights
    size: tuple[int, int] = (SIZE, SIZE)


class ZeroShot(nn.Module):
    """A model of pictures and text as a classifier by the embeddings of seven captions.

    `encode(model, images)` gives features, of any length. Its tensors are the model's.
    """

    def __init__(self, model: Any, encode: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.model = model
        self.encode = encode

    def forward(self, images: Tensor) -> Tensor:
        features = self.encode(self.model, images)
        features = F.normalize(getattr(features, "pooler_output", features), dim=-1)
        text = torch.from_numpy(weights.text_embeddings(features.shape[-1])).to(features)
        logits: Tensor = self.model.logit_scale.exp() * features @ F.normalize(text, dim=-1).T
        bias = getattr(self.model, "logit_bias", None)
        return logits if bias is None else logits + bias

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return self.model.state_dict()

    def load_state_dict(self, state_dict: Any, *_: Any, **__: Any) -> Any:
        return self.model.load_state_dict(state_dict)


def timm() -> Iterator[Case]:
    """Through the classes behind `timm.create_model`, small."""
    Distilled = import_module("timm.models.deit").VisionTransformerDistilled
    ViT = import_module("timm.models.vision_transformer").VisionTransformer
    small = SMALL | {"img_size": SIZE, "patch_size": 8}
    heads = {"num_heads": 3}
    yield Case("timm_vit", ViT(**small), heads, {})
    distilled = Distilled(**small, init_values=0.1)
    yield Case("timm_deit_distilled", distilled, heads, {})
    registers = ViT(**small, reg_tokens=4, no_embed_class=True, init_values=0.1, global_pool="avg")
    yield Case("timm_registers_mean", registers, heads, {})
    embedded = ViT(**small, reg_tokens=2)
    yield Case("timm_registers_with_positions", embedded, heads, {})
    one = small | {"num_heads": 1}
    no_token = {"class_token": False, "global_pool": "avg"}
    yield Case("timm_no_class_token", ViT(**small, **no_token), heads)
    yield Case("timm_registers_only", ViT(**small, **no_token, reg_tokens=2), heads)
    tanh = import_module("timm.layers").GELUTanh
    siglip = ViT(**small, class_token=False, global_pool="map", act_layer=tanh)
    yield Case("timm_attention_pool", siglip, heads | {"activation": "gelu_tanh"})
    quick = import_module("timm.layers").QuickGELU
    eps = partial(nn.LayerNorm, eps=1e-5)
    clip = ViT(**small, pre_norm=True, act_layer=quick, norm_layer=eps)
    flags = heads | {"activation": "quick_gelu", "layer_norm_eps": 1e-5}
    yield Case("timm_quick_gelu", clip, flags)
    Eva = import_module("timm.models.eva").Eva
    yield Case(
        "timm_eva",
        Eva(**small, use_abs_pos_emb=True, use_rot_pos_emb=False),
        heads | {"pool": "mean_patches"},
    )
    wide = {"img_size": (24, 64), "patch_size": (8, 16)}
    flags = heads | {"img_size": [24, 64]}
    yield Case("timm_wide", ViT(**small | wide), flags, size=(24, 64))
    pre = ViT(**one, pre_norm=True, qkv_bias=False, fc_norm=False, global_pool="avg")
    yield Case("timm_norm_pre_one_head", pre, {"num_heads": 1, "pool": "mean_patches"}, {})


def hugging_face() -> Iterator[Case]:
    """`transformers`, with the JSON that `save_pretrained` writes beside the weights."""
    transformers = import_module("transformers")
    facts = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "image_size": SIZE,
        "patch_size": 8,
        "id2label": {index: f"kind {index}" for index in range(7)},
        "attn_implementation": "eager",
    }
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**facts, qkv_bias=False))
    square = {"height": SIZE, "width": SIZE}
    processor = transformers.ViTImageProcessor(
        size=square, image_mean=[0.4, 0.5, 0.6], image_std=[0.2] * 3
    )
    yield Case("hugging_face_vit", vit, {}, _folder(vit, processor))
    deit = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**facts))
    processor = transformers.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size=square)
    yield Case("hugging_face_deit", deit, {}, _folder(deit, processor))

    small = {key: value for key, value in facts.items() if key != "attn_implementation"}
    for name, kind in {"dinov2": "Dinov2", "dinov2_registers": "Dinov2WithRegisters"}.items():
        config = getattr(transformers, f"{kind}Config")(**small, attn_implementation="eager")
        network = getattr(transformers, f"{kind}ForImageClassification")(config)
        yield Case(f"hugging_face_{name}", network, {}, _folder(network))
    ijepa = transformers.IJepaForImageClassification(transformers.IJepaConfig(**facts))
    yield Case("hugging_face_ijepa", ijepa, {}, _folder(ijepa))
    for kind in ("CLIP", "Siglip"):
        config = getattr(transformers, f"{kind}Config")(
            vision_config=facts | {"projection_dim": 24}, num_labels=7
        )
        config._attn_implementation = "eager"
        network = getattr(transformers, f"{kind}ForImageClassification")(config)
        yield Case(f"hugging_face_{kind.lower()}", network, {}, _folder(network))
        text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = getattr(transformers, f"{kind}Config")(
            vision_config=facts,
            text_config=text | {"intermediate_size": 8, "vocab_size": 16, "projection_size": 24},
            projection_dim=16,
        )
        config._attn_implementation = "eager"
        tower = getattr(transformers, f"{kind}Model")(config)
        zero_shot = ZeroShot(tower, lambda tower, images: tower.get_image_features(images))
        yield Case(f"hugging_face_{kind.lower()}_zero_shot", zero_shot, {}, _folder(tower))


def _folder(network: Any, processor: Any = None) -> dict[str, str]:
    found = {"config.json": network.config.to_json_string()}
    if processor is not None:
        found["preprocessor_config.json"] = processor.to_json_string()
    return found


def saved_as(network: Any) -> dict[str, str]:
    """Names in the files that transformers saves, which are not those of its state dict."""
    if not hasattr(network, "save_pretrained"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    state = network.state_dict()
    return {
        name: next(key for key, value in state.items() if torch.equal(value, tensor))
        for name, tensor in saved.items()
    }


def open_clip() -> Iterator[Case]:
    """open_clip's class, small."""
    CLIP = import_module("open_clip.model").CLIP
    vision = {"layers": 2, "width": 24, "head_width": 8, "patch_size": 8, "image_size": SIZE}
    text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    model = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    zero_shot = ZeroShot(model, lambda model, images: model.encode_image(images))
    yield Case("open_clip_zero_shot", zero_shot, {"num_heads": 3})


def torchvision() -> Iterator[Case]:
    """torchvision's class, small."""
    ViT = import_module("torchvision.models").VisionTransformer
    yield Case("torchvision_vit", ViT(SIZE, 8, 2, 3, 24, 40, num_classes=7), {"num_heads": 3})


def vit_pytorch() -> Iterator[Case]:
    """One version's two networks; heads are 10 wide, which is not width / heads."""
    DeepViT = import_module("vit_pytorch.deepvit").DeepViT
    ViT = import_module("vit_pytorch.vit").ViT
    release = version("vit-pytorch")
    facts = {
        "image_size": SIZE,
        "patch_size": 8,
        "num_classes": 7,
        "dim": 24,
        "depth": 2,
        "heads": 3,
        "mlp_dim": 40,
        "dim_head": 10,
    }
    yield Case(f"vit_pytorch_{release}_deepvit", DeepViT(**facts), {}, {})
    mean = {"pool": "mean"}
    yield Case(f"vit_pytorch_{release}_deepvit_mean", DeepViT(**facts, **mean), mean, {})
    yield Case(f"vit_pytorch_{release}_vit", ViT(**facts), {"num_heads": 3}, {})
    simple = import_module("vit_pytorch.simple_vit").SimpleViT(**facts)
    flags = {"num_heads": 3, "img_size": SIZE}
    yield Case(f"vit_pytorch_{release}_simple_vit", simple, flags)
    one = facts | {"heads": 1, "dim_head": 24}
    yield Case(f"vit_pytorch_{release}_vit_one_head", ViT(**one), {"num_heads": 1}, {})


FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "timm": timm,
    "hugging_face": hugging_face,
    "open_clip": open_clip,
    "torchvision": torchvision,
    "vit_pytorch": vit_pytorch,
}


def run(network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits [B, classes], and of each block what the softmax gave and what multiplies V.

    Caught where every code base has a module: at the softmax or the dropout behind it, and at
    the norm behind Theta.
    """
    softmax: list[Tensor] = []
    mixed: list[Tensor] = []
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if last in ("attend", "attn_drop"):
            module.register_forward_hook(lambda _, __, output: softmax.append(output))
        elif last == "reattn_norm":
            module.register_forward_hook(lambda _, __, output: mixed.append(output))
        elif name.endswith(("attention", "self_attn")) and hasattr(module, "q_proj"):
            module.register_forward_hook(lambda _, __, output: softmax.append(output[1]))
    with torch.inference_mode():
        answer = network(images)
    softmax = [maps for maps in softmax if maps is not None]  # none, where attention is fused
    return getattr(answer, "logits", answer), softmax, mixed


@torch.inference_mode()
def resized_positions(name: str, network: Any) -> weights.Array:
    """What the code base makes of a grid of 4 x 4 positions for one of 6 x 6, if it says."""
    resized = torch.zeros(0)
    if name == "timm_vit":
        resample = import_module("timm.layers").resample_abs_pos_embed
        resized = resample(network.pos_embed, [6, 6], num_prefix_tokens=1)
    if name in ("hugging_face_vit", "hugging_face_deit"):
        embeddings = network.base_model.embeddings
        tokens = torch.zeros(1, embeddings.position_embeddings.shape[1] - 4 * 4 + 6 * 6, 24)
        resized = embeddings.interpolate_pos_encoding(tokens, 48, 48)
    return resized.float().numpy()


def main() -> None:
    """Writes one file for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="+", choices=FAMILIES)
    for family in parser.parse_args().families:
        for name, network, flags, files, size in FAMILIES[family]():
            network.eval()
            shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
            drawn = weights.state_dict(shapes)
            network.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()})
            images = torch.from_numpy(weights.random_images(size)).double()
            facts = {
                "shapes": shapes,
                "flags": flags,
                "files": files,
                "saved_as": saved_as(network),
            }
            logits, softmax, mixed = run(network.double(), images)
            path = Path(__file__).parent / f"{name}.npz"
            np.savez_compressed(
                path,
                positions_48=resized_positions(name, network),
                facts=np.array(json.dumps(facts)),
                logits=logits.float().numpy(),
                softmax=np.stack([block.float().numpy() for block in softmax] or [np.zeros(0)]),
                reattention=np.stack([block.float().numpy() for block in mixed] or [np.zeros(0)]),
            )
            print(f"{path.name}: {len(softmax)} softmax and {len(mixed)} mixed maps")


if __name__ == "__main__":
    main()
