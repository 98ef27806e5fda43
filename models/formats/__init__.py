"""The code bases whose checkpoints are read, each told apart by the names of its tensors.

A format knows how its own tensors are named and what its own conventions are. It gives the
same network in the project's names; what the tensors tell is then read once, for all of them.
"""

from typing import Protocol

from models.formats import hugging_face, official, timm, vit_pytorch
from models.formats.source import CheckpointError, File, Source, names

__all__ = ["FORMATS", "CheckpointError", "File", "Format", "Source", "convert", "names"]


class Format(Protocol):
    """What every module of this package offers; the first that recognises a file converts it."""

    NAME: str

    def recognises(self, keys: set[str]) -> bool:
        """Whether these are names of tensors in this format."""

    def convert(self, file: File) -> Source:
        """The same network in our names, with what the format says beside it.

        Raises `CheckpointError` naming what this project cannot compute.
        """


FORMATS: tuple[Format, ...] = (official, timm, hugging_face, vit_pytorch)


def convert(file: File) -> Source:
    """Recognise a file and convert it. Raises `CheckpointError`."""
    keys = set(file.tensors)
    found = [each for each in FORMATS if each.recognises(keys)]
    if len(found) > 1:
        raise CheckpointError(
            f"the file mixes tensors of {' and '.join(each.NAME for each in found)}: "
            "save the state dict of one network alone"
        )
    if not found:
        raise CheckpointError(
            "not a state dict of a known format "
            f"({', '.join(each.NAME for each in FORMATS)}): it begins with "
            f"{names(list(file.tensors))}. Rename its tensors to those of one of them"
        )
    return found[0].convert(file)
