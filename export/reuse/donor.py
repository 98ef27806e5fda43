"""Whose map may be shared: only where attention has collapsed, unless forced."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from export.comparison import batches
from export.fold import FoldedDeepViT
from export.graphs import Explainer
from export.pictures import Pictures
from export.report.running import Running
from export.report.verdict import Verdict, blocks_in_words, judge
from export.reuse.sharing import shared
from models.checkpoint import Checkpoint
from models.collapse import THRESHOLD, VARIANTS
from models.preprocess import preprocess

_BATCH = 4


class Choice(NamedTuple):
    donor: int
    verdict: Verdict  # of the model as it was trained
    forced: bool  # some block that shares has not collapsed


class NotCollapsed(ValueError):
    """Sharing would replace maps by others that are not alike."""


def choose(
    source: Checkpoint,
    wanted: int | None,
    pictures: Pictures,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Choice:
    """The wanted donor, or the first whose later blocks have all collapsed.

    Eq. 2 compares columns only, as the paper's rule for a donor does. Blocks whose columns alone
    are alike attend to other keys than the block before: they have not collapsed, and their maps
    are shared only if `force` is set. Raises `NotCollapsed` otherwise.
    """
    depth = source.config.depth
    if wanted is not None:
        shared(source, wanted)  # possible at all? Before minutes are spent on pictures
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
            f"--force shares all the same. {' '.join(verdict.sentences)}"
        )
    return Choice(donor, verdict, forced)


@torch.inference_mode()
def _verdict(source: Checkpoint, pictures: Pictures, progress: Callable[[str], None]) -> Verdict:
    """On the softmax stage, before anything is exported."""
    explainer = Explainer(FoldedDeepViT(source.network(), source.preprocessing).eval())
    names = [output.name for output in explainer.outputs]
    running: dict[str, Running] = defaultdict(Running)
    for batch in batches(pictures, _BATCH):
        images = np.stack([preprocess(picture.image, source.preprocessing) for picture in batch])
        values = dict(zip(names, explainer(torch.from_numpy(images)), strict=True))
        for variant in VARIANTS:
            running[variant].add(values[f"softmax.similarity.{variant}"].numpy())
        running["entropy"].add(values["softmax.entropy"].mean(dim=2).numpy())
        if pictures.read % 100 < _BATCH:
            progress(f"{pictures.read:,} of {pictures.chosen:,} images")
    column, row, centred = (running[variant].estimate() for variant in VARIANTS)
    evenness = running["entropy"].estimate().mean / np.log(source.config.num_tokens)
    return judge("softmax", THRESHOLD, column, row, centred, evenness=evenness)
