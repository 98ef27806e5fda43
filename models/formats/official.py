"""The official DeepViT code, and this project's own files.

Its names of tensors are the project's: nothing is converted.
"""

from models.formats.geometry import as_size
from models.formats.source import File, Source

NAME = "official DeepViT"

_OURS = ("patch_embed.norm1.", "attn.var_norm.")


def recognises(keys: set[str]) -> bool:
    """timm's names, with Re-attention or a convolutional stem."""
    marks = ("reatten_matrix", "patch_embed.conv1", *_OURS)
    own = [key for key in keys if key.startswith(("blocks.", "patch_embed."))]
    return any(mark in key for key in own for mark in marks)


def convert(file: File) -> Source:
    """As it is, with pixels from -1 to 1 unless the file or the architecture says otherwise."""
    return Source(
        NAME,
        file.tensors,
        arch=file.arch,
        stated_size=as_size(file.facts.get("img_size")) or as_size(file.facts.get("input_size")),
        class_token=file.facts.get("class_token") is not False,
        facts=file.facts,
        labels=file.labels,
        imagenet=True,
        notes=file.notes,
    )
