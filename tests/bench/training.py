"""A training step of Re-attention: our forward pass against the network's own, in turns.

Forward and backward pass in bfloat16, without the optimiser.
"""

from functools import partial

import torch
from torch.nn import functional as F

from models.config import ARCHITECTURES
from models.training.forward import forward
from models.training.initialise import initialised
from tests.bench.timing import Contender, in_turns

_ARCHITECTURE = "deepvit_patch16_112_re_attn_16b"
_BATCHES = {112: 64, 224: 16}  # images by side: 50 and 197 tokens
_ROUNDS, _BUDGET_S = 9, 60.0


def run() -> None:
    print(f"{_ARCHITECTURE}, {torch.get_num_threads()} threads, ms an image")
    for side, batch in _BATCHES.items():
        _compare(side, batch)


def _compare(side: int, batch: int) -> None:
    config = ARCHITECTURES[_ARCHITECTURE].config.model_copy(update={"img_size": side})
    network = initialised(config, seed=0).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, config.num_classes, (batch,))

    def step(ours: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(network, images) if ours else network(images)
        network.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()

    contenders: dict[str, Contender] = {
        "network": partial(step, ours=False),
        "ours": partial(step, ours=True),
    }
    seconds = in_turns(contenders, _ROUNDS, _BUDGET_S)
    own, ours = (1000 * seconds[name] / batch for name in contenders)
    print(f"{side} px, batch {batch}: {own:.1f} and {ours:.1f}, {own / ours:.2f}x")
