"""The code bases whose checkpoints are read, recognised by the names of their tensors.

A format knows its own names and conventions, and converts a network to the project's names. The
architecture is then inferred from the tensors in the same way for all formats.
"""

from typing import Protocol

from models.formats import (
    clip,
    hugging_face,
    official,
    open_clip,
    timm,
    timm_names,
    torchvision,
    vit_pytorch,
)
from models.formats.source import CheckpointError, File, Source, names, refuse
from models.formats.wrappers import without_wrappers

__all__ = ["FORMATS", "CheckpointError", "File", "Format", "Source", "convert", "names"]


class Format(Protocol):
    """What the module of a format has. Exactly one of them has to recognise a file."""

    NAME: str

    def recognises(self, keys: set[str]) -> bool:
        """Whether these are names of tensors in this format."""

    def convert(self, file: File) -> Source:
        """The same network in the project's names, with the conventions of the format.

        Raises `CheckpointError`, which names what is not supported.
        """


# What tools leave in a state dict until their work is finished, in every format.
_UNFINISHED = {
    "_packed_params": "a layer that torch has quantised",
    "weight_orig": "a pruned layer, before torch.nn.utils.prune.remove,",
    "weight_g": "a layer under weight norm, before remove_weight_norm,",
    "parametrizations.": "a parametrised layer, before remove_parametrizations,",
    "lora_": "an adapter (LoRA) that is not merged",
}
FORMATS: tuple[Format, ...] = (
    official,
    timm,
    hugging_face,
    clip,
    open_clip,
    torchvision,
    vit_pytorch,
)


def convert(file: File) -> Source:
    """Recognise a file and convert it. Raises `CheckpointError`."""
    if file.ours:
        return official.convert(file)
    if file.name:
        timm_names.facts(file.name)  # raises for what is known not to be supported
    refuse(file.tensors, _UNFINISHED)
    file.tensors, notes = without_wrappers(file.tensors, _is_recognised)
    file.notes += notes
    keys = set(file.tensors)
    found = [each for each in FORMATS if each.recognises(keys)]
    if len(found) > 1:
        raise CheckpointError(
            f"the file mixes tensors of {' and '.join(each.NAME for each in found)}: "
            "save the state dict of one network only"
        )
    if not found:
        named = file.name and f"a checkpoint of {file.name}, which is not supported: "
        raise CheckpointError(
            f"{named or ''}not a state dict of a known format "
            f"({', '.join(each.NAME for each in FORMATS)}): it begins with "
            f"{names(file.tensors)}. Rename the tensors as in one of these formats"
        )
    return found[0].convert(file)


def _is_recognised(keys: set[str]) -> bool:
    return any(each.recognises(keys) for each in FORMATS)
