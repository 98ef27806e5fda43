"""`python -m models.training`: photographs in, a trained safetensors file and its card out."""

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from models import checkpoint
from models.checkpoint import Checkpoint, CheckpointError
from models.config import ARCHITECTURES, DeepViTConfig
from models.preprocess import Preprocessing
from models.training import card, photographs, targets
from models.training.card import Answered
from models.training.evaluation import answers, collapse
from models.training.halves import halved
from models.training.initialise import initialised, take_over
from models.training.loop import Data, Run, Teacher
from models.training.photographs import Files, PhotographsError
from models.training.progress import Progress
from models.training.recipe import Recipe


class Options(Recipe, BaseSettings):
    """Train a network on photographs that lie in one folder, or tar archive member, per class."""

    model_config = SettingsConfigDict(
        cli_parse_args=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python -m models.training",
        cli_avoid_json=True,
        extra="forbid",
        frozen=True,
    )

    images: list[Path] = Field(description="tar archives and folders to train on")
    test: list[Path] = Field(description="tar archives and folders to measure on")
    arch: str = Field(description="a named architecture, which --change may change")
    change: dict[str, str] = Field(
        default={}, description="fields of the architecture, as in --change depth=24"
    )
    weights: Path | None = Field(
        default=None,
        description="a checkpoint of this architecture to begin with instead of random numbers; "
        "for other classes its head begins anew",
    )
    output: Path = Field(description="folder of the run; a run that was interrupted goes on there")
    classes: list[str] = Field(
        default=[], description="classes to learn, separated by commas; all if unset"
    )
    soft_labels: Path | None = Field(
        default=None, description="an .npz file of a teacher's logits, for --distill"
    )
    teacher: str | None = Field(
        default=None,
        description="module:function that returns a teacher: images [B, 3, S, S] of values in 0..1 "
        "to logits, run on the same crops, for --distill",
    )
    canvas: int | None = Field(
        default=None,
        gt=0,
        description="longest side at which pictures are kept in memory, in pixels; "
        "10/7 of the input size if unset",
    )
    crop_pct: float = Field(default=1.0, gt=0, le=1, description="as preprocessing when served")
    small_below: int = Field(
        default=80, description="the card tells the accuracy of pictures with a shorter side"
    )
    half: bool = Field(
        default=False,
        description="round matrices to half precision, which then holds them exactly on disk, as "
        "trained and as exported",
    )
    compile: bool = Field(
        default=False, description="compile the forward pass: minutes at the start, faster steps"
    )
    device: str = Field(default="cuda" if torch.cuda.is_available() else "cpu")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 with one line on standard error; 130 where it was interrupted."""
    try:
        options = Options(_cli_parse_args=True if arguments is None else arguments)  # type: ignore[call-arg]
        train(options)
    except (CheckpointError, PhotographsError, SettingsError, ValueError) as exc:
        print(f"models.training: {_problem(exc)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on after the last epoch", file=sys.stderr)
        return 130
    return 0


def train(options: Options) -> None:
    """Train, round, measure, and write `<name>.safetensors` and `<name>.md` into the folder."""
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.model_fields})
    teachers = (options.soft_labels is not None) + (options.teacher is not None)
    if teachers != bool(recipe.distill):
        raise ValueError("--distill and one of --soft-labels and --teacher need each other")
    found = photographs.find(options.images, options.classes)
    test = photographs.find(options.test, options.classes)
    if len(found.classes) < 2:
        raise PhotographsError(f"there is one class, {found.classes[0]}: nothing can be learnt")
    if test.classes != found.classes:
        raise PhotographsError("the classes to train on are not those to measure on")
    if len(found) < recipe.batch_size:
        raise PhotographsError(
            f"{len(found)} pictures do not fill one batch of {recipe.batch_size}"
        )
    config = architecture(options.arch, options.change, len(found.classes))
    rule = ARCHITECTURES[options.arch].preprocessing.model_copy(
        update={"size": config.img_size, "crop_pct": options.crop_pct}
    )
    begin = initialised(config, recipe.seed)
    if options.weights is not None:
        take_over(checkpoint.load(options.weights), begin, found.classes)
    device = torch.device(options.device)
    data = _data(options, found, test, rule, device)
    options.output.mkdir(parents=True, exist_ok=True)
    teacher = _teacher(options.teacher) if options.teacher else None
    run = Run(begin, rule, recipe, data, options.output, device, teacher, options.compile)
    run.train(Progress(recipe.epochs, run.epoch, run.steps_per_epoch, recipe.batch_size))
    _finish(options, run, found, test)


def architecture(arch: str, changes: dict[str, str], classes: int) -> DeepViTConfig:
    """A named architecture with some fields changed, for this many classes.

    Values are JSON; `reatten_blocks` may be `all` or `none`, and one of `softmax_temperatures`
    is that of all blocks. Raises `ValueError`.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"no architecture {arch!r}; known: {', '.join(ARCHITECTURES)}")
    named = ARCHITECTURES[arch].config
    every = named.reatten_blocks == tuple(range(named.depth))
    changed = {key: _value(text) for key, text in changes.items()}
    blocks = changed.pop("reatten_blocks", "all" if every else named.reatten_blocks)
    temperatures = changed.pop("softmax_temperatures", named.softmax_temperatures)
    plain = {"reatten_blocks": (), "softmax_temperatures": (), "num_classes": classes}
    config = DeepViTConfig(**named.model_dump() | plain | changed)
    if blocks in ("all", "none"):
        blocks = tuple(range(config.depth)) if blocks == "all" else ()
    if isinstance(temperatures, float | int):
        temperatures = (temperatures,) * config.depth
    per_block = {"reatten_blocks": blocks, "softmax_temperatures": temperatures}
    return DeepViTConfig(**config.model_dump() | per_block)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _data(
    options: Options, found: Files, test: Files, rule: Preprocessing, device: torch.device
) -> Data:
    canvas = options.canvas or rule.size.side * 10 // 7
    soft = targets.soft_labels(options.soft_labels, found) if options.soft_labels else None
    teacher = options.teacher
    if options.soft_labels:
        teacher = hashlib.sha256(options.soft_labels.read_bytes()).hexdigest()
    learnt_from = f"{found.digest()} {teacher}"
    if options.weights is not None:
        learnt_from += f" {hashlib.sha256(options.weights.read_bytes()).hexdigest()}"
    return Data(
        training=photographs.decode(found, canvas).to(device),
        soft=None if soft is None else soft.to(device),
        test=photographs.as_served(test, rule),
        test_labels=test.labels,
        classes=len(found.classes),
        identity=hashlib.sha256(learnt_from.encode()).hexdigest(),
    )


def _teacher(name: str) -> Teacher:
    module, _, function = name.partition(":")
    try:
        return cast(Teacher, getattr(importlib.import_module(module), function)())
    except (ImportError, AttributeError, ValueError) as exc:
        raise ValueError(f"--teacher {name}: {exc}") from exc


def _finish(options: Options, run: Run, found: Files, test: Files) -> None:
    """Save the average of the weights, and write the card of what was saved."""
    name, average = options.output.name, run.result().cpu()
    network = halved(average) if options.half else average
    trained = Checkpoint(
        config=run.config,
        weights={key: _stored(value) for key, value in network.state_dict().items()},
        preprocessing=run.rule,
        sha256="",
        labels=found.classes,
    )
    checkpoint.save(options.output / f"{name}.safetensors", trained)
    saved = trained.network()
    answered = Answered(
        logits=answers(saved, run.data.test, run.rule),
        labels=test.labels,
        sides=photographs.shorter_sides(test),
        classes=found.classes,
        attention=collapse(saved, run.data.test, run.rule),
    )
    text = card.write(name, run, len(found), answered, options.small_below)
    (options.output / f"{name}.md").write_text(text, encoding="utf-8")
    share = answered.right.float().mean()
    print(f"{options.output / name}.safetensors: test accuracy {share:.2%}, float32")


def _stored(value: torch.Tensor) -> torch.Tensor:
    """Matrices in half precision, where it holds them exactly."""
    matrix = value.is_floating_point() and value.ndim > 1
    return value.half() if matrix and torch.equal(value.half().float(), value) else value


def _problem(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
    return str(exc)


if __name__ == "__main__":
    sys.exit(main())
