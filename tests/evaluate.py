"""`make evaluate`: compares POST /classify with PyTorch on each test image of CIFAR-10.

Needs the 10,000 test images as JPEG files in `test.tar`, one folder per class. Uses the server
at --url, or starts one.
"""

import argparse
import asyncio
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from export.verify import normalize
from models import checkpoint
from models.preprocess import preprocess
from service.inference.cpus import available_cpus
from tests.support.server import ROOT, running_server

_IMAGES = ROOT.parent / "shared" / "cifar10" / "test.tar"
_MODELS = ("deepvit16-cifar10", "vit16-cifar10")
_BATCH = 250  # images at once in PyTorch


@dataclass(frozen=True)
class TestSet:
    images: list[bytes]  # JPEG files
    classes: npt.NDArray[np.int64]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.evaluate", description=__doc__)
    parser.add_argument("--url", help="address of a running server; without it, one is started")
    parser.add_argument("--images", type=Path, default=_IMAGES, help="the tar file")
    parser.add_argument("--models", nargs="+", default=_MODELS)
    parser.add_argument("--clients", type=int, default=32, help="concurrent requests")
    options = parser.parse_args()
    if not options.images.is_file():
        print(f"evaluate: no {options.images}; name the tar file with --images", file=sys.stderr)
        return 1
    test_set = _read(options.images)
    with _server(options.url) as url:
        for model in options.models:
            _evaluate(url, model, test_set, options.clients)
    return 0


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with running_server(ROOT / "model_repository", intra_op_threads=available_cpus()) as server:
        yield server.url


def _read(path: Path) -> TestSet:
    images: list[bytes] = []
    names: list[str] = []
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".jpg"):
                images.append(file.read())
                names.append(Path(member.name).parent.name)
    return TestSet(images, np.unique(names, return_inverse=True)[1])


def _evaluate(url: str, model: str, test_set: TestSet, clients: int) -> None:
    started = time.perf_counter()
    served = np.array(asyncio.run(_classify(url, model, test_set.images, clients)))
    seconds = time.perf_counter() - started
    reference = _pytorch(model, test_set.images)
    count = len(served)
    for name, answers in (("served", served), ("PyTorch", reference)):
        print(f"{model}: {name:8} accuracy {(answers == test_set.classes).mean():.2%}")
    differing = int((served != reference).sum())
    print(f"{model}: {differing} of {count} top-1 answers differ")
    print(f"{model}: {count / seconds:.0f} images/s over HTTP, {clients} clients")


async def _classify(url: str, model: str, images: list[bytes], clients: int) -> list[int]:
    """The top-1 class of each image; every request has one image."""
    found = [-1] * len(images)
    progress = _Progress(f"{model} over HTTP", len(images))
    todo = iter(enumerate(images))
    limits = httpx.Limits(max_connections=clients)

    async def work(client: httpx.AsyncClient) -> None:
        for index, image in todo:
            response = await client.post(
                "/classify",
                params={"model": model, "top_k": 1},
                content=image,
                headers={"Content-Type": "image/jpeg"},
            )
            response.raise_for_status()
            found[index] = response.json()["results"][0]["predictions"][0]["index"]
            progress.advance()

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
    return found


@torch.inference_mode()
def _pytorch(model: str, images: list[bytes]) -> npt.NDArray[np.int64]:
    """The top-1 class of each image by the bundled checkpoint in PyTorch."""
    trained = checkpoint.load(ROOT / "models" / "zoo" / f"{model}.safetensors")
    network, rule = trained.network(), trained.preprocessing
    progress = _Progress(f"{model} in PyTorch", len(images))
    found = []
    for start in range(0, len(images), _BATCH):
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in images[start:][:_BATCH]]
        pixels = np.stack([preprocess(picture, rule) for picture in pictures])
        found.append(network(normalize(pixels, rule)).argmax(dim=-1).numpy())
        progress.advance(len(pixels))
    return np.concatenate(found)


class _Progress:
    """A line on standard error that shows how many images are done."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0

    def advance(self, count: int = 1) -> None:
        before, self._done = self._done, self._done + count
        if (
            self._done == self._total
            or self._done * 100 // self._total > before * 100 // self._total
        ):
            end = "\n" if self._done == self._total else ""
            print(f"\r{self._what}: {self._done} of {self._total}", end=end, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
