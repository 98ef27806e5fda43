"""However many files there are, few are in flight, and paths are kept on a disk."""

import asyncio
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from service.bulk import files
from service.bulk.columns import Columns
from service.bulk.flight import opened
from service.bulk.model import load_model
from service.bulk.seen import Seen
from service.bulk.settings import BulkSettings
from tests.conftest import DEEPVIT

_FILES = 3000


def test_few_files_are_between_their_path_and_their_row(
    pictures: Path, repository: Path, tmp_path: Path
) -> None:
    settings = BulkSettings(  # type: ignore[call-arg]
        source="-",
        output=str(tmp_path / "answers.parquet"),
        model=DEEPVIT,
        model_repository=repository,
        intra_op_threads=1,
        decode_threads=2,
    )
    model = load_model(settings)
    columns = Columns(model.manifest, settings)
    taken = landed = most = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        for _ in range(_FILES):
            taken += 1
            yield str(pictures / "0" / f"{taken % 200 * 3:03}.jpg")

    async def fly() -> int:
        nonlocal landed, most
        read = partial(files.read, max_bytes=2**20)
        with opened(settings, model, columns, read) as flight:
            async for _ in flight.rows(paths(), asyncio.Event()):
                most = max(most, taken - landed)
                landed += 1
            return flight.window + 2 * flight.group

    bound = asyncio.run(fly())
    model.stop()
    assert landed == _FILES
    assert most <= bound < _FILES / 10
    sizes = model.classifier.counts.batch_sizes
    full = sum(size * times for size, times in sizes.items() if size == model.engine.plan.batch)
    assert full > 0.9 * _FILES, "nearly all images are in full batches"


def test_paths_that_were_seen_are_not_kept_in_memory() -> None:
    """SQLite's own memory is bounded by its cache."""
    seen = Seen()
    path = "a folder/" * 20
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    assert sum(1 for _ in seen.new(f"{path}{number}" for number in range(100_000))) == 100_000
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2**20
    assert not list(seen.new(f"{path}{number}" for number in range(0, 100_000, 997)))
    seen.close()
