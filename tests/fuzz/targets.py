"""What is fuzzed: how its inputs are made, and the code that must take them or say why not."""

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz import images, inference


class Target(NamedTuple):
    """`make` builds one input; `take` gives it to the code, and raises if that misbehaves."""

    make: Callable[[random.Random], bytes]
    take: Callable[[bytes], None]


TARGETS = {
    "image": Target(images.make, images.take),
    "rest": Target(inference.make_rest, inference.take_rest),
    "grpc": Target(inference.make_grpc, inference.take_grpc),
}
