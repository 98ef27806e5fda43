"""Runs one exported model over many images, and keeps the mean of every measure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession
from PIL import Image

from export.report import ReportError
from export.report.running import Estimate, Running
from export.sessions import cpu_session
from models.arrays import Float32Array, Float64Array, Pixels
from models.collapse import by_block
from models.manifest import Manifest, NewerManifest, version_folders
from models.preprocess import preprocess
from models.stages import TOKEN_MEASURES, Stage, map_measures, stages


class Key(NamedTuple):
    """A measure of maps at a stage, or of tokens, which have no stage."""

    stage: Stage | None
    measure: str


@dataclass(frozen=True)
class Measured:
    """A model and its means over images."""

    manifest: Manifest
    estimates: Mapping[Key, Estimate]
    maps: Mapping[Stage, Float64Array]  # mean over images and heads, [L, N, N]

    @property
    def stages(self) -> tuple[Stage, ...]:
        return stages(self.manifest.config)


class Model:
    """Takes pictures one by one, runs them in batches, and keeps sums only."""

    def __init__(self, repository: Path, name: str, threshold: float) -> None:
        """Open the highest version in a repository. Raises `ReportError`."""
        folder = _version(repository, name)
        self.manifest = _manifest(folder)
        self._threshold = threshold
        self._names = dict(_wanted(self.manifest))
        self._session = _open(folder / "explain.onnx", set(self._names.values()))
        self._waiting: list[Pixels] = []
        self._running: dict[Key, Running] = defaultdict(Running)
        self._maps: dict[Stage, Running] = defaultdict(Running)

    def add(self, picture: Image.Image) -> None:
        self._waiting.append(preprocess(picture, self.manifest.preprocessing))
        if len(self._waiting) == self.manifest.max_explain_batch_size:
            self._run()

    def finish(self) -> Measured:
        """The means over all pictures added."""
        if self._waiting:
            self._run()
        return Measured(
            manifest=self.manifest,
            estimates={key: running.estimate() for key, running in self._running.items()},
            maps={stage: running.estimate().mean for stage, running in self._maps.items()},
        )

    def _run(self) -> None:
        wanted = list(dict.fromkeys(self._names.values()))
        answers = self._session.run(wanted, {"images": np.stack(self._waiting)})
        self._waiting.clear()
        outputs = dict(zip(wanted, answers, strict=True))
        found = {key: outputs[name] for key, name in self._names.items()}
        for stage in stages(self.manifest.config):
            maps = [found.pop(Key(stage, f"map.{block}")) for block in _blocks(self.manifest)]
            means = [block.mean(axis=1) for block in maps]  # [B, N, N] each
            self._maps[stage].add(np.stack(means, axis=1))
            found |= _derived(stage, found, self._threshold)
        for key, values in found.items():
            self._running[key].add(values)


def _derived(
    stage: Stage, found: dict[Key, Float32Array], threshold: float
) -> dict[Key, Float32Array]:
    """Further means, taken for each image, because an interval needs the values of images."""
    pairs = found.pop(Key(stage, "neighbour_similarity"))  # [B, L - 1, H, N]
    heads = found[Key(stage, "head_similarity")]  # [B, L, H, H]
    H = heads.shape[-1]
    others = heads.sum(axis=(2, 3)) - heads.trace(axis1=2, axis2=3)
    derived = {
        Key(stage, "similar_vectors"): _share(pairs > threshold),
        Key(stage, "opposite_vectors"): _share(pairs < -threshold),
        Key(stage, "other_heads"): others / (H * (H - 1) or np.nan),  # a single head has none
    }
    if stage == "softmax":
        for measure in ("entropy", "attention_distance"):
            derived[Key(stage, f"mean_{measure}")] = found[Key(stage, measure)].mean(axis=2)
    return derived


def _share(pairs: npt.NDArray[np.bool_]) -> Float32Array:
    """The share of (head, token) pairs by block: [B, L - 1, H, N] to [B, L]."""
    return by_block(pairs.mean(axis=(2, 3), dtype=np.float32))


def _wanted(manifest: Manifest) -> Iterator[tuple[Key, str]]:
    """What is measured, and the output of the explain graph that has it."""
    for stage in stages(manifest.config):
        for measure in map_measures(stage):
            yield Key(stage, measure), manifest.output(measure, stage).name
        for block in _blocks(manifest):
            yield Key(stage, f"map.{block}"), manifest.output("map", stage, block).name
    for measure in TOKEN_MEASURES:
        try:
            yield Key(None, measure), manifest.output(measure).name
        except KeyError as exc:
            raise ReportError(
                f"{manifest.name} was exported without {measure}; export it again"
            ) from exc


def _blocks(manifest: Manifest) -> range:
    return range(manifest.config.depth)


def _version(repository: Path, name: str) -> Path:
    if name and (found := version_folders(repository / name)):
        return found[-1]
    others = sorted({path.parents[1].name for path in repository.glob("*/*/manifest.json")})
    listed = ", ".join(others) or "none"
    raise ReportError(f"{repository} has no model {name!r}; its models: {listed}")


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.read((folder / "manifest.json").read_text(encoding="utf-8"))
    except NewerManifest as exc:
        raise ReportError(f"{folder}: {exc}; upgrade this one") from exc
    except (OSError, ValueError) as exc:
        raise ReportError(f"{folder} has no readable manifest; export it again") from exc


def _open(graph: Path, needed: set[str]) -> InferenceSession:
    try:
        session = cpu_session(graph)
    except Exception as exc:  # ONNX Runtime's errors have no common class
        raise ReportError(f"{graph} cannot be loaded: {' '.join(str(exc).split())}") from exc
    if missing := needed - {output.name for output in session.get_outputs()}:
        raise ReportError(f"{graph} has no output {min(missing)}; export it again")
    return session
