"""Which block may share its map: only one whose later blocks have collapsed, unless forced."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from export.fold import FoldedDeepViT
from export.graphs import Explainer
from export.pictures import Pictures
from export.progress import Throttle
from export.report.running import Running
from export.report.verdict import Verdict, blocks_in_words, judge
from export.reuse.sharing import shared
from models.checkpoint import Checkpoint
from models.collapse import THRESHOLD, VARIANTS

_BATCH = 4
_PROGRESS_S = 5.0


class Choice(NamedTuple):
    donor: int
    verdict: Verdict  # of the model as it was trained
    forced: bool  # not all blocks that take its map have collapsed


class NotCollapsed(ValueError):
    """Sharing would replace maps by others that are not like them."""


def choose(
    source: Checkpoint,
    wanted: int | None,
    pictures: Pictures,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Choice:
    """The wanted donor, or the first block whose later blocks have all collapsed.

    The paper's rule for a donor compares columns only (Eq. 2). Blocks with similar columns and
    other rows attend to other keys than the block before: they have not collapsed, and take a
    donor's map only if `force` is set. Raises `NotCollapsed` otherwise.
    """
    depth = source.config.depth
    if wanted is not None:
        shared(source, wanted)  # raises if there is no such donor, before minutes are spent
    verdict = _verdict(source, pictures, progress)
    safe = verdict.donor_by_rows
    donor = safe if wanted is None else wanted
    if wanted is None and force and safe == depth - 1:
        donor = verdict.donor
    if donor == depth - 1:
        raise NotCollapsed(f"no donor for attention reuse. {' '.join(verdict.sentences)}")
    forced = donor < safe
    if forced and not force:
        others = blocks_in_words([b for b in range(donor + 1, depth) if b not in verdict.collapsed])
        raise NotCollapsed(
            f"block {donor} cannot share its map with {others}, which have not collapsed; "
            f"--force shares it anyway. {' '.join(verdict.sentences)}"
        )
    return Choice(donor, verdict, forced)


@torch.inference_mode()
def _verdict(source: Checkpoint, pictures: Pictures, progress: Callable[[str], None]) -> Verdict:
    """Judge the softmax maps of the model as trained."""
    explainer = Explainer(FoldedDeepViT(source.network(), source.preprocessing).eval())
    names = [output.name for output in explainer.outputs]
    running: dict[str, Running] = defaultdict(Running)
    tell = Throttle(progress, _PROGRESS_S)
    for batch in pictures.batches(_BATCH, source.preprocessing):
        values = dict(zip(names, explainer(torch.from_numpy(batch.pixels)), strict=True))
        for variant in VARIANTS:
            running[variant].add(values[f"softmax.similarity.{variant}"].numpy())
        running["entropy"].add(values["softmax.entropy"].mean(dim=2).numpy())
        tell(pictures.progress)
    column, row, centred = (running[variant].estimate() for variant in VARIANTS)
    evenness = running["entropy"].estimate().mean / np.log(source.config.num_tokens)
    return judge("softmax", THRESHOLD, column, row, centred, evenness=evenness)
