"""What format, names, file and caller say about one network, and who overrules whom."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from models.config import DeepViTConfig
from models.formats import known
from models.formats.architecture import patch_of
from models.formats.geometry import StatedSize, as_size
from models.formats.source import CheckpointError, Source, names
from models.preprocess import Preprocessing
from models.size import Size

_NEEDED = ("num_heads", "reatten_scale", "scale_adjustment")


class Facts:
    """In rising order: conventions of the format, the architecture that the file names, the file's
    own words, the architecture that the caller names, and the caller's flags. What the tensors
    determine overrules them all.
    """

    def __init__(
        self, source: Source, told: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> None:
        """`told` are the facts of the architecture that the caller names."""
        self._source = source
        self._told = told
        self._overrides = {key: v for key, v in overrides.items() if key != "img_size"}
        self.named = self._of_the_name()
        self._stated = self._of_the_file()

    def _of_the_name(self) -> dict[str, Any]:
        """The facts of the architecture that the file names, if it is known."""
        source = self._source
        if source.arch is None:
            return {}
        found = known.facts(source.arch)
        if found is None:
            source.notes.append(
                f"warning: the file names its architecture {source.arch}, which is not known: "
                "computed as the tensors say; check its answers"
            )
            return {}
        source.notes.append(f"architecture {source.arch} named by the file")
        width = source.tensors["pos_embed"].shape[-1] if "pos_embed" in source.tensors else None
        if found["embed_dim"] != width:
            found = {key: value for key, value in found.items() if key != "num_heads"}
        return found

    def _of_the_file(self) -> dict[str, Any]:
        """The file's own words, without those that mean something else in its training script."""
        facts: dict[str, Any] = {}
        for key, value in self._source.facts.items():
            kind = next((k for k in (DeepViTConfig, Preprocessing) if key in k.model_fields), None)
            if kind is None or value in (None, "") or key in ("img_size", "size"):
                continue
            try:
                facts[key] = _validated(kind, key, value)
            except ValidationError:
                self._source.notes.append(
                    f"{key} {value!r} in the file does not mean what it would mean here: not used"
                )
        return facts

    def sizes(self) -> list[StatedSize]:
        """Input sizes that somebody states, without a name that differs in its patches."""
        source, found = self._source, []
        projection = source.tensors.get("patch_embed.proj.weight")
        patch = patch_of(source) if projection is not None and projection.ndim == 4 else None
        if source.stated_size is not None:
            found.append(StatedSize(source.stated_size, "the file"))
        for facts, by in ((self._told, "--arch"), (self.named, source.arch or "")):
            if facts and as_size(facts["patch_size"]) == patch:
                found.append(StatedSize(Size.of(facts["img_size"]), by))
        return found

    def config(self, inferred: Mapping[str, Any]) -> DeepViTConfig:
        source = self._source
        inferred = {**inferred, **source.inferred}
        layers = (source.conventions, self.named, self._stated, self._told, self._overrides)
        stated: dict[str, Any] = {}
        for facts in layers:
            stated |= _fields(facts, DeepViTConfig)
        for key in sorted(inferred.keys() & stated.keys()):
            if not _equal(stated[key], inferred[key]):
                source.notes.append(
                    f"{key} is {_shown(inferred[key])} by the tensors, not {_shown(stated[key])}"
                )
        facts = stated | inferred
        if facts["num_classes"] == 1 and "scores" not in {*self._stated, *self._overrides}:
            facts["scores"] = "sigmoid"
            source.notes.append("one logit: its probability is a sigmoid")
        if len(temperatures := facts.get("softmax_temperatures", ())) == 1:
            facts["softmax_temperatures"] = temperatures * facts["depth"]
        if not facts["reatten_blocks"]:
            facts = {"reatten_scale": 1.0, "scale_adjustment": 1.0} | facts
        missing = [key for key in _NEEDED if key not in facts]
        if missing:
            flags = " ".join(f"--{key.replace('_', '-')} VALUE" for key in missing)
            advice = f" ({source.advice})" if source.advice and "num_heads" in missing else ""
            raise CheckpointError(
                f"the tensors do not determine {names(missing)}: pass --arch NAME, or "
                f"{flags}{advice}"
            )
        try:
            return DeepViTConfig(**facts)
        except ValidationError as exc:
            problems = "; ".join(error["msg"] for error in exc.errors())
            raise CheckpointError(f"the architecture does not fit together: {problems}") from exc

    def preprocessing(self, config: DeepViTConfig) -> Preprocessing:
        rule: dict[str, Any] = {}
        conventions = self._source.conventions
        for facts in (conventions, self.named, self._told, self._stated, self._overrides):
            rule |= _fields(facts, Preprocessing)
        try:
            return Preprocessing(**rule | {"size": config.img_size})
        except ValidationError as exc:
            problems = "; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors())
            raise CheckpointError(f"the preprocessing does not fit together: {problems}") from exc


def _fields(facts: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """The facts that are fields of one class."""
    return {k: v for k, v in facts.items() if k in kind.model_fields and v not in (None, "")}


def _validated(kind: type[BaseModel], key: str, value: Any) -> Any:
    """A value for one field. Raises `ValidationError`."""
    field = kind.model_fields[key]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
    return adapter.validate_python(value)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Size) or isinstance(other, Size):
        return as_size(one) == as_size(other)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)
    return bool((tuple(one) if isinstance(one, list) else one) == other)


def _shown(value: Any) -> str:
    return str(Size.of(value)) if isinstance(value, Size) else str(value)
