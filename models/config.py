"""The architecture of a DeepViT or a plain ViT as one frozen class, and the named architectures.

Free of torch: the service reads the same class from a model's manifest. What timm's names say is in
models/formats/timm_names.json.
"""

from functools import partial
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.preprocess import Preprocessing
from models.size import Size

Stem = Literal["patch", "conv"]
Pool = Literal["cls", "cls_dist", "cls_mean", "mean", "mean_patches", "attention"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Scores = Literal["softmax", "sigmoid"]


class DeepViTConfig(BaseModel):
    """Everything that defines the network besides its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    img_size: Size = Field(description="in pixels: one number for a square, or height and width")
    patch_size: Size
    in_chans: int = Field(default=3, gt=0)
    num_classes: int = Field(default=1000, gt=0)
    embed_dim: int = Field(gt=0)
    depth: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    mlp_ratio: float = Field(default=3.0, gt=0)
    qkv_bias: bool = True
    attn_dim: int | None = Field(
        default=None, gt=0, description="width of all heads together; embed_dim if unset"
    )
    prefix_tokens: int = Field(
        default=1,
        ge=0,
        description="tokens before the patches: the class token, then a distillation token or "
        "registers",
    )
    class_token: bool = Field(
        default=True, description="whether the first of these tokens is a class token"
    )
    pool: Pool = Field(
        default="cls",
        description="what the classifier head sees: one token; two side by side; the class token "
        "beside the mean of the patches; a mean of all tokens or of patches; or what a learned "
        "query finds in the patches",
    )
    features: int | None = Field(
        default=None,
        gt=0,
        description="width of a projection before the head, whose output is scaled to unit length "
        "(zero-shot classification, as of CLIP)",
    )
    scores: Scores = Field(
        default="softmax",
        description="how logits become probabilities: softmax where exactly one class is right, "
        "sigmoid where each class is right or not",
    )
    activation: Activation = Field(
        default="gelu",
        description="of the MLPs: GELU, its approximation by tanh, or x sigmoid(1.702 x)",
    )
    stem: Stem = Field(default="patch", description="one patch convolution, or three convolutions")
    reatten_blocks: tuple[int, ...] = Field(default=(), description="blocks that mix heads")
    reatten_norm: bool = Field(default=True, description="BatchNorm over heads after the mixing")
    reatten_layer_norm: bool = Field(
        default=False, description="a LayerNorm over the heads of each entry instead"
    )
    reatten_scale: float = Field(default=1.0, description="factor on the map after mixing and norm")
    scale_adjustment: float = Field(default=1.0, gt=0, description="a in x += f(norm(a x)) / a")
    softmax_temperatures: tuple[float, ...] = Field(
        default=(), description="divisors of the attention logits, block by block; 1 if empty"
    )
    attention_donor: int | None = Field(
        default=None,
        ge=0,
        description="the block whose softmax map all later blocks use (attention reuse)",
    )
    layer_norm_eps: float = Field(default=1e-6, gt=0)
    patch_norm: bool = Field(
        default=False, description="LayerNorms over a patch's pixels and over its embedding"
    )
    norm_pre: bool = Field(default=False, description="a LayerNorm before the first block")
    norm_after_pool: bool = Field(
        default=False, description="the last LayerNorm comes after pooling"
    )
    last_norm: bool = Field(default=True, description="a LayerNorm before or after pooling")

    @model_validator(mode="after")
    def _whole_patches_and_heads(self) -> "DeepViTConfig":
        if self.heads_dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide a width of {self.heads_dim}")
        if any(self.img_size % self.patch_size):
            raise ValueError(f"patches of {self.patch_size} do not divide {self.img_size} pixels")
        patch = self.patch_size
        if self.stem == "conv" and (patch.height % 2 or not patch.is_square):
            raise ValueError(f"a conv stem needs square patches of an even size, not {patch}")
        if self.patch_norm and self.stem != "patch":
            raise ValueError("norms around the patch embedding need the patch stem")
        return self

    @model_validator(mode="after")
    def _blocks_exist(self) -> "DeepViTConfig":
        if any(not 0 <= block < self.depth for block in self.reatten_blocks):
            raise ValueError(f"reatten_blocks must be from 0 to {self.depth - 1}")
        if len(self.softmax_temperatures) not in (0, self.depth):
            raise ValueError(
                f"{len(self.softmax_temperatures)} temperatures for {self.depth} blocks"
            )
        if any(temperature <= 0 for temperature in self.softmax_temperatures):
            raise ValueError("softmax temperatures must be above 0")
        if self.attention_donor is not None and self.attention_donor > self.depth - 2:
            raise ValueError(f"attention_donor {self.attention_donor}: no block comes after it")
        return self

    @model_validator(mode="after")
    def _pooled_tokens_exist(self) -> "DeepViTConfig":
        if self.class_token and not self.prefix_tokens:
            raise ValueError("a class token is one of the prefix tokens")
        if self.pool.startswith("cls") and not self.class_token:
            raise ValueError(f"pool {self.pool} needs a class token")
        if self.pool == "cls_dist" and self.prefix_tokens < 2:
            raise ValueError("pool cls_dist needs a distillation token")
        if self.pool == "attention" and self.norm_after_pool:
            raise ValueError("pool attention takes the last LayerNorm before it")
        return self

    def map_source(self, block: int) -> int:
        """The block that computes the softmax map of a block: itself, or the donor."""
        return block if self.attention_donor is None else min(block, self.attention_donor)

    @property
    def heads_dim(self) -> int:
        """Width of all heads together."""
        return self.attn_dim or self.embed_dim

    @property
    def head_dim(self) -> int:
        return self.heads_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        return round(self.embed_dim * self.mlp_ratio)

    @property
    def grid(self) -> Size:
        """Rows and columns of patches."""
        return self.img_size // self.patch_size

    @property
    def default_query(self) -> str:
        """Whose attention is shown first: the class token's, or that of the patch in the middle."""
        return "cls" if self.class_token else f"{self.grid.height // 2},{self.grid.width // 2}"

    @property
    def head_width(self) -> int:
        """What the classifier head takes of an image: its features."""
        return self.features or self.pooled_width

    @property
    def pooled_width(self) -> int:
        return (2 if self.pool in ("cls_dist", "cls_mean") else 1) * self.embed_dim

    @property
    def num_tokens(self) -> int:
        """Patches and the tokens before them."""
        return self.grid.area + self.prefix_tokens


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
