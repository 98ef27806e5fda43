"""The named architectures: those of the paper, and the bundled ones.

What timm's names say is in models/formats/timm_names.json.
"""

from functools import partial
from typing import NamedTuple

from models.config import DeepViTConfig
from models.preprocess import Preprocessing
from models.size import Size


class Architecture(NamedTuple):
    config: DeepViTConfig
    preprocessing: Preprocessing


def plain_vit(
    depth: int, embed_dim: int = 384, num_heads: int = 12, img_size: int = 224
) -> Architecture:
    """The paper's baseline: patch 16, no mixing, any depth and width."""
    config = DeepViTConfig(
        img_size=Size.of(img_size),
        patch_size=Size.of(16),
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
    )
    return Architecture(config, Preprocessing(size=Size.of(img_size)))


def _deepvit(depth: int) -> Architecture:
    plain = plain_vit(depth)
    return plain._replace(
        config=plain.config.model_copy(update={"reatten_blocks": tuple(range(depth))})
    )


def _tuned(
    embed_dim: int,
    depth: int,
    mixing: int,
    reatten_scale: float = 1.0,
    img_size: int = 224,
    crop_pct: float = 0.9,
) -> Architecture:
    """DeepViT-S and -L: a conv stem, Re-attention in the last blocks, scale adjustment 0.5."""
    config = DeepViTConfig(
        img_size=Size.of(img_size),
        patch_size=Size.of(16),
        embed_dim=embed_dim,
        depth=depth,
        num_heads=12,
        stem="conv",
        reatten_blocks=tuple(range(depth - mixing, depth)),
        reatten_scale=reatten_scale,
        scale_adjustment=0.5,
    )
    return Architecture(config, Preprocessing(size=Size.of(img_size), crop_pct=crop_pct))


def _bundled(
    img_size: int, patch_size: int, num_classes: int, embed_dim: int, mixing: bool, scaled: bool
) -> Architecture:
    """Small networks that train without a GPU: 16 blocks, 6 heads, a conv stem, whole pictures."""
    config = DeepViTConfig(
        img_size=Size.of(img_size),
        patch_size=Size.of(patch_size),
        num_classes=num_classes,
        embed_dim=embed_dim,
        depth=16,
        num_heads=6,
        stem="conv",
        reatten_blocks=tuple(range(16)) if mixing else (),
        reatten_scale=(embed_dim / 6) ** -0.5 if mixing and scaled else 1.0,
    )
    return Architecture(config, Preprocessing(size=Size.of(img_size), crop_pct=1.0))


_cifar = partial(_bundled, 32, 4, 10, 96, scaled=False)
_photos = partial(_bundled, 112, 16, 81, 192, scaled=True)

_TEST = DeepViTConfig(
    img_size=Size.of(32),
    patch_size=Size.of(8),
    num_classes=7,
    embed_dim=24,
    depth=3,
    num_heads=3,
    reatten_blocks=(1, 2),
    reatten_scale=0.7,
    scale_adjustment=0.5,
)

ARCHITECTURES: dict[str, Architecture] = {
    "deepvit_patch16_224_re_attn_16b": _deepvit(16),
    "deepvit_patch16_224_re_attn_24b": _deepvit(24),
    "deepvit_patch16_224_re_attn_32b": _deepvit(32),
    "deepvit_S": _tuned(396, 16, mixing=5, reatten_scale=(396 / 12) ** -0.5),
    "deepvit_L": _tuned(420, 32, mixing=12),
    "deepvit_L_384": _tuned(420, 32, mixing=12, img_size=384, crop_pct=1.0),
    "vit_patch16_224_12b": plain_vit(12),
    "vit_patch16_224_16b": plain_vit(16),
    "vit_patch16_224_24b": plain_vit(24),
    "vit_patch16_224_32b": plain_vit(32),
    "deepvit_patch4_32_re_attn_16b": _cifar(mixing=True),
    "vit_patch4_32_16b": _cifar(mixing=False),
    "deepvit_patch16_112_re_attn_16b": _photos(mixing=True),
    "vit_patch16_112_16b": _photos(mixing=False),
    "deepvit_test": Architecture(_TEST, Preprocessing(size=Size.of(32))),
}
