"""Finds the tensors of one network among everything that a training script saved around them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from models.formats.source import names

# Keys under which training scripts keep a state dict. Averaged weights come first: they are what
# such scripts evaluate.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher")
_PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "student", "module")
_MAX_DEPTH = 5
# What modules around a network put before the names of its tensors.
_ANYWHERE = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.", "timm_model.")
# Tensors of losses and metrics that live beside a network, and the counters of thop.
_BESIDE = re.compile(
    r"(?:\w*(?:criterion|loss|metric|accuracy|auroc|confusion)\w*|(?:train|val|valid|test)_\w+)\..+"
    r"|n_averaged"
    r"|(?:.+\.)?total_(?:ops|params)"
)


def find_state_dict(
    content: Mapping[Any, Any], depth: int = _MAX_DEPTH
) -> tuple[dict[str, Tensor], list[str]]:
    """The innermost mapping that holds tensors, and the keys that lead to it.

    Of several, averaged weights are preferred. Tensors are empty if there are none. A pickle may
    hold a mapping that contains itself, so no more than `depth` of them are opened.
    """
    for key in (*_AVERAGED, *_PLAIN) if depth else ():
        if isinstance(inner := content.get(key), Mapping):
            tensors, keys = find_state_dict(inner, depth - 1)
            if tensors:
                return tensors, [key, *keys]
    found = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return found, []


def is_averaged(keys: list[str]) -> bool:
    return any(key in _AVERAGED for key in keys)


def without_wrappers(
    tensors: Mapping[str, Tensor], recognised: Callable[[set[str]], bool]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network under its own names, and notes on what was taken off.

    Prefixes are taken off until `recognised` says that the names are those of a known format;
    none are if it never does.
    """
    beside = [key for key in tensors if _BESIDE.fullmatch(key)]
    notes = [f"left out, because they are no part of a network: {names(beside)}"] if beside else []
    found = {
        _ANYWHERE.sub(r"\1", key): value for key, value in tensors.items() if key not in beside
    }
    taken = ""
    while not recognised(set(found)):
        prefix = next((each for each in _PREFIXES if any(k.startswith(each) for k in found)), None)
        if prefix is None:
            return dict(tensors), []
        outside = [key for key in found if not key.startswith(prefix)]
        if outside:
            notes.append(f"left out, because they are not under {taken}{prefix}: {names(outside)}")
        found = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        taken += prefix
    return found, notes
