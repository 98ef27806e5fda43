"""Every format against the code it comes from, on the stored values."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import checkpoint
from models.checkpoint import Checkpoint, CheckpointError
from models.config import ARCHITECTURES, plain_vit
from models.deepvit import DeepViT
from models.size import Size
from tests.models.formats import weights
from tests.support.formats import STORED, facts_of, flags_to_load, tensors_of, written

TOLERANCE = 1e-5


def assert_equal(found: Checkpoint, name: str) -> None:
    """Logits in single precision; maps in double, because a LayerNorm over three heads magnifies
    rounding where the heads agree."""
    images = torch.from_numpy(weights.random_images(found.config.img_size))
    with torch.inference_mode(), np.load(STORED[name]) as stored:
        single = found.network()(images)
        logits, traces = found.network().double().trace(images.double())
        assert np.abs(single.numpy() - stored["logits"]).max() < TOLERANCE
        assert np.abs(logits.numpy() - stored["logits"]).max() < TOLERANCE
        assert np.abs(stored["logits"]).max() > 0.1
        for stage in ("softmax", "reattention"):
            if stored[stage].size:
                maps = np.stack([getattr(trace, stage).numpy() for trace in traces])
                assert np.abs(maps - stored[stage]).max() < TOLERANCE, stage


@pytest.mark.parametrize("name", sorted(STORED))
def test_logits_and_maps_equal_those_of_the_code_base(name: str, tmp_path: Path) -> None:
    found = checkpoint.load(written(tmp_path, name), **flags_to_load(tmp_path, name))
    assert_equal(found, name)
    checkpoint.save(tmp_path / "again.safetensors", found)
    assert_equal(checkpoint.load(tmp_path / "again.safetensors"), name)


def test_every_code_base_and_generation_is_there() -> None:
    begins = {"timm_vit", "timm_deit", "timm_eva", "torchvision_vit"}
    kinds = ("vit", "deit", "dinov2", "dinov2_registers", "ijepa", "clip", "siglip")
    begins |= {f"hugging_face_{kind}" for kind in kinds}
    begins |= {"hugging_face_clip_zero", "hugging_face_siglip_zero", "open_clip_zero"}
    begins |= {
        f"vit_pytorch_{release}_{kind}"
        for release in ("0.40.2", "1.2.2", "1.20.2")
        for kind in ("deepvit", "vit")
    }
    assert all(any(name.startswith(begin) for name in STORED) for begin in begins)


@pytest.mark.parametrize("name", ["hugging_face_vit", "hugging_face_deit"])
def test_names_that_transformers_saves(name: str, tmp_path: Path) -> None:
    facts = facts_of(name)
    tensors = tensors_of(facts)
    path = written(tmp_path, name)
    assert facts["saved_as"].keys() != tensors.keys()
    saved = {key: tensors[of] for key, of in facts["saved_as"].items()}
    save_file(saved, path / "model.safetensors")
    assert_equal(checkpoint.load(path), name)


def test_labels_and_preprocessing_of_a_hugging_face_folder(tmp_path: Path) -> None:
    vit = checkpoint.load(written(tmp_path, "hugging_face_vit"))
    assert vit.labels == tuple(f"kind {index}" for index in range(7))
    assert vit.config.num_heads == 3
    assert vit.config.layer_norm_eps == 1e-12
    rule = vit.preprocessing
    assert rule.mean == pytest.approx((0.4, 0.5, 0.6))
    assert rule.std == pytest.approx((0.2, 0.2, 0.2))
    assert (rule.resize_mode, rule.interpolation) == ("both_sides", "bilinear")
    assert rule.resize == Size.of(32)


def test_a_centre_crop_and_other_ranges_of_pixels(tmp_path: Path) -> None:
    path = written(tmp_path, "hugging_face_deit")
    assert checkpoint.load(path).preprocessing.resize == Size.of(36)
    processor = json.loads((path / "preprocessor_config.json").read_text())
    processor |= {"rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": [1] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    rule = checkpoint.load(path).preprocessing  # p / 127.5 - 1
    assert rule.mean == pytest.approx((0.5, 0.5, 0.5))
    assert rule.std == pytest.approx((0.5, 0.5, 0.5))


def test_a_file_of_hugging_face_alone_asks_for_its_folder(tmp_path: Path) -> None:
    torch.save(tensors_of(facts_of("hugging_face_vit")), tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"--num-heads VALUE \(config.json .* the folder"):
        checkpoint.load(tmp_path / "vit.pth")
    found = checkpoint.load(tmp_path / "vit.pth", num_heads=3)
    assert found.preprocessing.interpolation == "bilinear"
    assert any("no preprocessor_config.json" in note for note in found.notes)


def test_facts_of_a_timm_folder(tmp_path: Path) -> None:
    save_file(tensors_of(facts_of("timm_vit")), tmp_path / "model.safetensors")
    stated = {"mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "crop_pct": 0.8, "crop_mode": "squash"}
    config = {
        "architecture": "vit_tiny_patch16_224.augreg_in21k",
        "label_names": list("abcdefg"),
        "pretrained_cfg": stated,
        "model_args": {"embed_dim": 24, "num_heads": 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = checkpoint.load(tmp_path)
    assert found.arch == "vit_tiny_patch16_224"
    assert found.config.num_heads == 3
    assert found.labels == tuple("abcdefg")
    rule = found.preprocessing
    assert (rule.mean, rule.crop_pct, rule.resize_mode) == ((0.1, 0.2, 0.3), 0.8, "both_sides")


def test_conventions_of_deit_and_flags_over_them(tmp_path: Path) -> None:
    torch.save({"model": tensors_of(facts_of("timm_vit"))}, tmp_path / "deit.pth")
    found = checkpoint.load(tmp_path / "deit.pth", num_heads=3)
    assert found.format == "DeiT"
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)
    told = checkpoint.load(tmp_path / "deit.pth", num_heads=3, mean=(0.5, 0.5, 0.5), crop_pct=1.0)
    assert told.preprocessing.mean == (0.5, 0.5, 0.5)
    assert told.preprocessing.resize == Size.of(32)


def test_a_thousand_classes_without_names_are_those_of_imagenet(tmp_path: Path) -> None:
    tensors = tensors_of(facts_of("timm_vit"))
    tensors |= {"head.weight": torch.zeros(1000, 24), "head.bias": torch.zeros(1000)}
    torch.save(tensors, tmp_path / "model.pth")
    labels = checkpoint.load(tmp_path / "model.pth", num_heads=3).labels
    assert labels is not None
    assert (labels[0], labels[281], labels[999]) == ("tench", "tabby", "toilet tissue")
    assert len(set(labels)) == 1000


@pytest.mark.parametrize("name", ["timm_vit", "hugging_face_vit", "hugging_face_deit"])
def test_another_input_size_interpolates_positions_as_the_code_base(
    name: str, tmp_path: Path
) -> None:
    path = written(tmp_path, name)
    trained = checkpoint.load(path, num_heads=3)
    larger = checkpoint.load(path, num_heads=3, img_size=48)
    assert larger.config.grid == Size.of(6)
    assert larger.preprocessing.size == Size.of(48)
    assert "trained at 32 x 32 pixels: positions interpolated to 48 x 48" in larger.notes
    before, after = trained.weights["pos_embed"][0], larger.weights["pos_embed"][0]
    prefix = trained.config.prefix_tokens
    assert torch.equal(before[:prefix], after[:prefix])
    with np.load(STORED[name]) as stored:
        assert np.abs(after.numpy() - stored["positions_48"][0]).max() < TOLERANCE
    with pytest.raises(CheckpointError, match="patches of 8 x 8 do not divide 50 x 50 pixels"):
        checkpoint.load(path, num_heads=3, img_size=50)


def test_batch_norm_over_heads_at_another_size_is_warned_of(tmp_path: Path) -> None:
    network = DeepViT(ARCHITECTURES["deepvit_test"].config)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", "deepvit_test", img_size=64)
    assert any("maps of 17 tokens, so its offsets are wrong for 65" in n for n in found.notes)


@pytest.mark.parametrize("width", [256, 384, 512, 768])
def test_widths_of_the_paper(width: int, tmp_path: Path) -> None:
    config = plain_vit(1, embed_dim=width, num_heads=8, img_size=32).config
    torch.save(DeepViT(config).state_dict(), tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", num_heads=8)
    assert found.config == config
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)  # the paper's, by its MLP


def test_a_temperature_for_all_blocks_or_one_each(tmp_path: Path) -> None:
    path = written(tmp_path, "timm_vit")
    for given in ((2.0,), (2.0, 2.0)):
        found = checkpoint.load(path, num_heads=3, softmax_temperatures=given)
        assert found.config.softmax_temperatures == (2.0, 2.0)
    with pytest.raises(CheckpointError, match="3 temperatures for 2 blocks"):
        checkpoint.load(path, num_heads=3, softmax_temperatures=(1.0, 1.0, 1.0))


# Networks without these tensors are networks too.
OPTIONAL = {
    "timm_registers_mean": ["cls_token"],
    "timm_eva": ["q_bias", "v_bias"],
    "hugging_face_dinov2_registers": ["register_tokens"],
}
# Tensors that no answer of the classifier depends on.
TEXT = ("text_model.", "text_projection.", "logit_")
UNUSED = {
    "hugging_face_clip": ("vision_model.post_layernorm.",),
    "hugging_face_siglip": ("vision_model.head.",),
    "hugging_face_clip_zero_shot": TEXT,
    "hugging_face_siglip_zero_shot": TEXT,
    "open_clip_zero_shot": (
        *("transformer.", "token_embedding.", "positional_embedding", "ln_final."),
        *("text_projection", "logit_scale", "attn_mask"),
    ),
    "hugging_face_dinov2": ("dinov2.embeddings.mask_token",),
    "hugging_face_dinov2_registers": ("dinov2_with_registers.embeddings.mask_token",),
}
REFUSED = {
    "blocks.0.attn.q_norm.weight": "not supported: a norm over queries and keys",
    "blocks.0.mlp.w12.weight": "not supported: a gated MLP",
    "blocks.0.attn.proj_l.weight": "not supported: talking heads",
    "blocks.0.attn.DLA.depth_sep_conv.weight": "not supported: Refiner's convolutions",
    "patch_embed.backbone.stem.weight": "a convolutional network in front of a ViT",
    "pre_logits.fc.weight": "a hidden layer before the head",
    "fc_norm.weight": r"norms before and after pooling \(norm, fc_norm\)",
    "surprise": "not part of this network: surprise",
    "vit.embeddings.cls_token": "mixes tensors of timm ViT and Hugging Face ViT",
}


@pytest.mark.parametrize(("key", "message"), REFUSED.items())
def test_unknown_parts_are_refused_by_name(key: str, message: str, tmp_path: Path) -> None:
    tensors = tensors_of(facts_of("timm_vit")) | {key: torch.ones(24)}
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "model.pth", num_heads=3)


@pytest.mark.parametrize("name", sorted(STORED))
def test_every_tensor_is_needed_and_has_to_have_its_shape(name: str, tmp_path: Path) -> None:
    """Without it, or one value longer, a file is refused; no error but this one gets out."""
    facts = facts_of(name)
    written(tmp_path, name)
    flags = {"num_heads": 3} | flags_to_load(tmp_path, name)
    for file, text in facts["files"].items():
        (tmp_path / file).write_text(text)
    path = tmp_path / "model.safetensors"
    optional = ["qkv.bias", "reattn_norm", "distillation", "dist", "reg_token"]
    optional += OPTIONAL.get(name, [])
    whole = tensors_of(facts)
    for key, tensor in whole.items():
        if key.startswith(UNUSED.get(name, ())):
            continue
        longer = tensor.new_zeros([*tensor.shape[:-1], tensor.shape[-1] + 1])
        # Patches of 8 x 9 pixels make another network, and not a damaged one.
        for damaged in (None, None if tensor.ndim == 4 and tensor.shape[1] == 3 else longer):
            tensors = {k: v for k, v in whole.items() if k != key}
            if damaged is not None:
                tensors[key] = damaged
            elif any(part in key for part in optional) or key.endswith(".bias"):
                continue
            save_file(tensors, path)
            with pytest.raises(CheckpointError):
                checkpoint.load(path, **flags)


MISSING = {
    "hugging_face_vit": [
        "vit.embeddings.cls_token",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.layers.1.attention.k_proj.weight",
        "vit.layers.0.layernorm_before.weight",
        "vit.layers.1.mlp.fc2.bias",
        "vit.layernorm.weight",
        "classifier.bias",
    ],
    "hugging_face_deit": [
        "deit.embeddings.position_embeddings",
        "cls_classifier.bias",
        "distillation_classifier.weight",
    ],
    "hugging_face_dinov2": [
        "dinov2.encoder.layer.1.norm1.weight",
        "dinov2.encoder.layer.0.attention.q_proj.weight",
        "dinov2.embeddings.position_embeddings",
    ],
    "hugging_face_clip": [
        "vision_model.encoder.layers.1.layer_norm1.weight",
        "vision_model.encoder.layers.0.self_attn.v_proj.bias",
        "vision_model.pre_layrnorm.bias",
    ],
    "torchvision_vit": [
        "encoder.layers.encoder_layer_1.mlp.3.bias",
        "encoder.pos_embedding",
        "conv_proj.bias",
    ],
    "vit_pytorch_0.40.2_deepvit": [
        "pos_embedding",
        "to_patch_embedding.1.bias",
        "transformer.layers.1.0.fn.fn.to_out.0.weight",
        "transformer.layers.0.1.fn.norm.weight",
        "mlp_head.1.bias",
    ],
}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in MISSING for key in MISSING[name]]
)
def test_errors_name_tensors_as_the_file_does(name: str, key: str, tmp_path: Path) -> None:
    """Missing or of a wrong shape, in every generation of names."""
    facts = facts_of(name)
    path = written(tmp_path, name)
    whole = tensors_of(facts)
    shapes = {own: own for own in whole}
    for generation in (shapes, facts["saved_as"] or shapes):
        theirs = next(name for name, own in generation.items() if own == key)
        tensors = {name: whole[own] for name, own in generation.items()}
        wrong = tensors | {theirs: torch.ones(3, 1, 5)}
        del tensors[theirs]
        for damaged in (tensors, wrong):
            if path.is_dir():
                save_file(damaged, path / "model.safetensors")
            else:
                torch.save(damaged, path)
            with pytest.raises(CheckpointError) as refused:
                checkpoint.load(path, **flags_to_load(tmp_path, name))
            assert re.search(rf"(?<![\w.]){re.escape(theirs)}(?!\.?\w)", str(refused.value))
            assert not re.search(r"blocks\.|pos_embed\b|\bhead\.", str(refused.value))


def test_networks_without_classifier_or_colours_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    headless = tensors_of(facts_of("hugging_face_vit"))
    del headless["classifier.weight"], headless["classifier.bias"]
    torch.save(headless, path)
    with pytest.raises(CheckpointError, match="save a ViTForImageClassification, not a ViTModel"):
        checkpoint.load(path)
    grey = tensors_of(facts_of("timm_vit"))
    grey["patch_embed.proj.weight"] = grey["patch_embed.proj.weight"][:, :1]
    torch.save(grey, path)
    with pytest.raises(CheckpointError, match="takes 1 channels, and only RGB"):
        checkpoint.load(path, num_heads=3)


def test_folders_without_weights_or_in_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither model.safetensors nor pytorch_model"):
        checkpoint.load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not say which files hold the weights"):
        checkpoint.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json beside the weights is not readable"):
        checkpoint.load(tmp_path)


def test_a_linear_head_sees_projected_features_or_those_before(tmp_path: Path) -> None:
    """Told by its width. Both are one linear layer behind the tower's last norm."""
    name = "hugging_face_clip_zero_shot"
    path, tensors = written(tmp_path, name), tensors_of(facts_of(name))
    images = torch.from_numpy(weights.random_images((32, 32)))
    wide, narrow = torch.randn(5, 24), torch.randn(5, 16)
    projection = tensors["visual_projection.weight"]
    for weight, expected in ((wide, wide), (narrow, narrow @ projection)):
        torch.save({"weight": weight, "bias": torch.ones(5)}, tmp_path / "head.pth")
        found = checkpoint.load(path, head=tmp_path / "head.pth")
        assert found.config.features is None
        torch.testing.assert_close(found.weights["head.weight"], expected)
        assert found.network()(images).shape == (2, 5)
    torch.save({"weight": torch.randn(5, 17)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match=r"weight \[5, 17\] instead of \[5, 24\]"):
        checkpoint.load(path, head=tmp_path / "head.pth")


def test_heads_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "hugging_face_clip_zero_shot")
    with pytest.raises(CheckpointError, match="no classifier: pass --head FILE"):
        checkpoint.load(path)
    torch.save({"text_embeddings": torch.ones(5, 17)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match=r"\[5, 17\] of --head do not fit features of 16"):
        checkpoint.load(path, head=tmp_path / "head.pth")
    torch.save({"a": torch.ones(5, 17)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match="neither text_embeddings nor weight"):
        checkpoint.load(path, head=tmp_path / "head.pth")
    torch.save({"weight": torch.ones(5, 24)}, tmp_path / "head.pth")
    torch.save(tensors_of(facts_of("timm_vit")), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="and this one has one"):
        checkpoint.load(tmp_path / "model.pth", head=tmp_path / "head.pth", num_heads=3)
