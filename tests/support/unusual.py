"""Small networks, with random weights, that are unlike most: what each is made for is in its name.

`wide` is neither square nor are its patches; `tall` has nothing but patches; `registers` has two
registers before them, no class token, and classes of which several may be right; `yes_or_no` has
one logit.
"""

from pathlib import Path

from models.config import DeepViTConfig
from models.preprocess import Preprocessing
from models.size import Size

WIDE, TALL, REGISTERS, YES_OR_NO = UNUSUAL = ("wide", "tall", "registers", "yes_or_no")

_CONFIGS = {
    WIDE: DeepViTConfig(
        img_size=Size(48, 128),
        patch_size=Size(8, 16),
        num_classes=7,
        embed_dim=24,
        depth=2,
        num_heads=3,
        reatten_blocks=(0, 1),
    ),
    TALL: DeepViTConfig(
        img_size=Size(64, 32),
        patch_size=Size(8, 8),
        num_classes=7,
        embed_dim=24,
        depth=2,
        num_heads=3,
        prefix_tokens=0,
        class_token=False,
        pool="mean",
    ),
    REGISTERS: DeepViTConfig(
        img_size=Size(32, 32),
        patch_size=Size(8, 8),
        num_classes=5,
        embed_dim=24,
        depth=2,
        num_heads=3,
        prefix_tokens=2,
        class_token=False,
        pool="mean_patches",
        scores="sigmoid",
        reatten_blocks=(1,),
    ),
    YES_OR_NO: DeepViTConfig(
        img_size=Size(32, 32),
        patch_size=Size(8, 8),
        num_classes=1,
        embed_dim=24,
        depth=2,
        num_heads=3,
        scores="sigmoid",
    ),
}


def config_of(name: str) -> DeepViTConfig:
    return _CONFIGS[name]


def preprocessing_of(name: str) -> Preprocessing:
    return Preprocessing(size=_CONFIGS[name].img_size)


def labels_of(name: str) -> tuple[str, ...]:
    return tuple(f"{name} {index}" for index in range(_CONFIGS[name].num_classes))


def weights_of(repository: Path, name: str) -> Path:
    """The checkpoint beside the repository that a network was exported from."""
    return repository.with_name(f"{repository.name}.{name}.safetensors")
