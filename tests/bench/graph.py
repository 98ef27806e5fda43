"""The graph: one model in all contenders, and the cost of explanations.

With a folder of pictures, both int8s are calibrated on them, and a table says how often the
contenders that round answer as float32 does.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.bench import models, startup
from tests.bench.contenders import EAGER, Contenders
from tests.bench.record import Record, table
from tests.bench.timing import in_turns

BATCHES = (1, 8, 32)


def run(
    name: str,
    pictures: Path | None = None,
    batches: Sequence[int] = BATCHES,
    rounds: int = 15,
    budget_s: float = 60,
) -> None:
    """Print and record all contenders at every batch size, then start-up time, memory and files."""
    folder = models.calibrated(name, pictures) if pictures else models.exported(name)
    record = Record("graph", name)
    contenders = Contenders(folder, pictures or models.PHOTOS)
    if pictures:
        shares: list[list[object]] = []
        for what, share, images in contenders.same_answers(pictures):
            record.add(what=what, answers_as_float32=round(share, 4), images=images)
            shares.append([what, f"{share:.2%}", images])
        print(*table(["", "answers as float32", "images"], shares), sep="\n", flush=True)
    for batch in batches:
        skipped: dict[str, str] = {}
        medians = in_turns(contenders.of(batch, skipped), rounds, budget_s)
        baseline = medians[EAGER]
        rows: list[list[object]] = []
        for what, seconds in medians.items():
            ratio = round(baseline / seconds, 2)
            per_image = round(seconds / batch * 1e3, 3)
            record.add(batch=batch, what=what, ms_per_image=per_image, times_eager=ratio)
            rows.append([what, per_image, round(batch / seconds, 1), f"{ratio}x"])
        print(f"\n{name}, batch {batch}\n")
        print(*table(["", "ms an image", "images/s", "against eager"], rows), sep="\n")
        for what, reason in skipped.items():
            record.add(batch=batch, what=what, skipped=reason)
            print(f"\nskipped: {what}: {reason}")
    for what, figure, unit in startup.figures(folder):
        record.add(what=what, **{unit: figure})
        print(f"{what}: {figure} {unit}")
