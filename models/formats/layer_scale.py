"""LayerScale, folded into the layers that it scales."""

from torch import Tensor

from models.formats.source import CheckpointError, names

# Names as in timm and in DeiT III.
_LAYERS = {
    "ls1.gamma": "attn.proj",
    "gamma_1": "attn.proj",
    "ls2.gamma": "mlp.fc2",
    "gamma_2": "mlp.fc2",
}


def fold_layer_scale(tensors: dict[str, Tensor], notes: list[str]) -> None:
    """In x += gamma * f(x), scale the rows of f's last layer. Raises `CheckpointError`."""
    scaled = {
        key: key.removesuffix(ending) + layer
        for key in tensors
        for ending, layer in _LAYERS.items()
        if key.endswith(f".{ending}")
    }
    if not scaled:
        return
    layers = {key.removesuffix(".weight") for key in tensors}
    layers = {key for key in layers if key.endswith((".attn.proj", ".mlp.fc2"))}
    if missing := layers - {*scaled.values()} - {"attn_pool.mlp.fc2"}:
        raise CheckpointError(f"LayerScale is missing at {names(sorted(missing))}")
    for key, layer in scaled.items():
        gamma = tensors.pop(key).double()
        for leaf in ("weight", "bias"):
            if (tensor := tensors.get(f"{layer}.{leaf}")) is not None:
                if gamma.shape != tensor.shape[:1]:
                    raise CheckpointError(f"{key} {list(gamma.shape)} does not fit {layer}.{leaf}")
                scale = gamma[:, None] if leaf == "weight" else gamma
                tensors[f"{layer}.{leaf}"] = (tensor.double() * scale).float()
    notes.append("LayerScale folded into attn.proj and mlp.fc2")
