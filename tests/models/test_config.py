"""Every named architecture has the size that its own code, or timm's, gives it."""

import pytest
import torch
from pydantic import ValidationError

from models.config import ARCHITECTURES, DeepViTConfig, plain_vit
from models.deepvit import DeepViT

PARAMETERS = {
    "deepvit_patch16_224_re_attn_16b": 24_426_664,
    "deepvit_patch16_224_re_attn_24b": 36_261_448,
    "deepvit_patch16_224_re_attn_32b": 48_096_232,
    "deepvit_S": 27_312_632,
    "deepvit_L": 58_883_708,
    "deepvit_L_384": 59_043_308,
    "vit_patch16_224_12b": 18_507_112,
    "vit_patch16_224_16b": 24_423_784,
    "vit_patch16_224_24b": 36_257_128,
    "vit_patch16_224_32b": 48_090_472,
    "deepvit_patch4_32_re_attn_16b": 1_572_554,
    "vit_patch4_32_16b": 1_571_690,
    "deepvit_patch16_112_re_attn_16b": 6_794_929,
    "vit_patch16_112_16b": 6_794_065,
    # 1000 less than timm's: the mean of two heads has one bias
    "deepvit_test": 23_467,
}


def parameters(config: DeepViTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DeepViT(config).parameters())


def test_no_architecture_lacks_a_row() -> None:
    assert PARAMETERS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_count_is_exact(name: str) -> None:
    assert parameters(ARCHITECTURES[name].config) == PARAMETERS[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_preprocessing_gives_the_network_its_size(name: str) -> None:
    config, rule = ARCHITECTURES[name]
    assert rule.size == config.img_size


def test_plain_vit_grows_with_depth_and_width() -> None:
    shallow, deep = (parameters(plain_vit(depth, embed_dim=96).config) for depth in (2, 3))
    wide = parameters(plain_vit(2, embed_dim=192).config)
    assert shallow < deep < wide


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "5 heads do not divide"),
        ({"patch_size": 7}, "patches of 7 x 7 do not divide"),
        ({"img_size": 15, "patch_size": 5, "stem": "conv"}, "square patches of an even size"),
        ({"reatten_blocks": (3,)}, "must be from 0 to 2"),
        ({"depth": 0}, "greater than 0"),
    ],
)
def test_impossible_architectures_are_refused(change: dict[str, object], message: str) -> None:
    facts = ARCHITECTURES["deepvit_test"].config.model_dump()
    with pytest.raises(ValidationError, match=message):
        DeepViTConfig(**facts | change)
