"""`make evaluate`: compares POST /classify with PyTorch on every photograph of a test set.

The test set is one folder, or tar archive member, per class. Photographs of classes that a model
does not know count for agreement only. Uses the server at --url, or starts one. Exits with status 1
if fewer answers of the server are those of PyTorch than --agreement says, ties aside.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from models import checkpoint
from models.training import photographs
from models.training.evaluation import answers
from models.training.photographs import Files, PhotographsError
from service.inference.cpus import available_cpus
from tests.conftest import BUNDLED
from tests.support.server import ROOT, running_command

# Two classes whose probabilities PyTorch has this close are equally right as the first answer.
_TIE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.evaluate", description=__doc__)
    parser.add_argument("--url", help="address of a running server; without it, one is started")
    parser.add_argument(
        "--images", type=Path, action="append", required=True, help="a tar archive or a folder"
    )
    parser.add_argument("--models", nargs="+", default=BUNDLED)
    parser.add_argument("--precision", help="DEEPVIT_PRECISION of the server that is started")
    parser.add_argument(
        "--agreement", type=float, default=1.0, help="the share of answers that must be PyTorch's"
    )
    parser.add_argument("--clients", type=int, default=32, help="concurrent requests")
    options = parser.parse_args()
    try:
        files = photographs.find(options.images)
        with _server(options.url, options.precision) as url:
            agree = [_agreement(url, model, files, options.clients) for model in options.models]
    except PhotographsError as exc:
        print(f"evaluate: {exc}", file=sys.stderr)
        return 1
    return 0 if min(agree) >= options.agreement else 1


@contextmanager
def _server(url: str | None, precision: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    settings: dict[str, object] = {"intra_op_threads": available_cpus()}
    if precision is not None:
        settings["precision"] = precision
    with running_command(ROOT / "model_repository", **settings) as server:
        yield server.url


def _agreement(url: str, model: str, files: Files, clients: int) -> float:
    """Print accuracy, agreement and speed of one model; the share of first answers that agree."""
    print(f"{model}: {len(files)} images", file=sys.stderr)
    started = time.perf_counter()
    found = asyncio.run(_classify(url, model, files.data, clients))
    seconds = time.perf_counter() - started
    served, shares = (np.array(column) for column in zip(*found, strict=True))
    trained = checkpoint.load(ROOT / "models" / "zoo" / f"{model}.safetensors")
    rule = trained.preprocessing
    logits = answers(trained.network(), photographs.as_served(files, rule), rule)
    probabilities = logits.softmax(dim=1).numpy()
    reference = probabilities.argmax(axis=1)
    index = {label: number for number, label in enumerate(trained.labels or ())}
    labels = np.array([index.get(files.classes[label], -1) for label in files.labels])
    known = labels >= 0
    for name, first in (("served", served), ("PyTorch", reference)):
        right = (first == labels)[known].mean()
        print(
            f"{model}: {name:8} accuracy {right:.2%} of {known.sum()} of its {len(index)} classes"
        )
    each = np.arange(len(files))
    expected = probabilities[each, reference]
    differs = served != reference
    ties = differs & (expected - probabilities[each, served] < _TIE)
    same = 1 - (differs & ~ties).mean()
    print(
        f"{model}: {differs.sum()} of {len(files)} first answers differ ({differs[known].sum()} of "
        f"those of its classes), {ties.sum()} of them ties; the first answers' probabilities "
        f"differ by {np.abs(shares - expected).max():.1e} at most"
    )
    print(f"{model}: {len(files) / seconds:.0f} images/s over HTTP, {clients} clients", flush=True)
    return float(same)


async def _classify(
    url: str, model: str, images: Sequence[bytes], clients: int
) -> list[tuple[int, float]]:
    """The first class of each image, and its probability; every request has one image."""
    found = [(-1, 0.0)] * len(images)
    todo = iter(enumerate(images))
    limits = httpx.Limits(max_connections=clients)

    async def work(client: httpx.AsyncClient) -> None:
        for index, image in todo:
            response = await client.post(
                "/classify",
                params={"model": model, "top_k": 1},
                content=image,
                headers={"Content-Type": "image/*"},
            )
            (first,) = response.raise_for_status().json()["results"][0]["predictions"]
            found[index] = first["index"], first["probability"]

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
    return found


if __name__ == "__main__":
    sys.exit(main())
