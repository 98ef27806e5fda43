"""What determines a training run besides its data and its network: one class, and its defaults."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Recipe(BaseModel):
    """A run with the same recipe, data, network and kind of processor repeats bit for bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=128, gt=1)
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="bf16: linear layers and convolutions, under autocast"
    )

    lr: float = Field(default=1e-3, gt=0, description="of AdamW after warm-up")
    min_lr: float = Field(default=1e-5, ge=0, description="at the end of the cosine")
    warmup_epochs: float = Field(default=2, ge=0, description="lr rises from 0 linearly")
    weight_decay: float = Field(default=0.05, ge=0, description="of matrices; norms have none")
    clip_norm: float = Field(
        default=1.0, gt=0, description="largest norm of all gradients together"
    )
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="of the average of weights, which is what is saved"
    )
    drop_path: float = Field(
        default=0.05, ge=0, lt=1, description="stochastic depth in the last block, 0 in the first"
    )

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    distill: float = Field(
        default=0.0, ge=0, le=1, description="share of the loss that a teacher's answers make"
    )
    distill_temperature: float = Field(default=1.0, gt=0, description="of teacher and student")
    mix: float = Field(
        default=0.8, ge=0, le=1, description="share of batches under mixup or cutmix, half each"
    )
    mixup_alpha: float = Field(default=0.2, gt=0, description="of the Beta distribution")
    cutmix_alpha: float = Field(default=1.0, gt=0, description="of the Beta distribution")

    first_size: int | None = Field(
        default=None, gt=0, description="side of pictures at first, in pixels; they grow by patches"
    )
    full_size_from: float = Field(
        default=0.8, ge=0, le=1, description="share of the epochs after which they are of full size"
    )
    crop_scale: tuple[float, float] = Field(
        default=(0.3, 1.0), description="least and largest share of a picture's area in a crop"
    )
    crop_ratio: tuple[float, float] = Field(
        default=(3 / 4, 4 / 3), description="narrowest and widest crop"
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="share mirrored left to right")
    colour: float = Field(
        default=0.3, ge=0, lt=1, description="most change of brightness, contrast, saturation"
    )
    greyscale: float = Field(default=0.05, ge=0, le=1, description="share without colour")
    erasing: float = Field(default=0.2, ge=0, le=1, description="share with a rectangle erased")
    soften: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="share shrunk and enlarged again, so that sharpness does not give a class away",
    )
    soften_to: tuple[float, float] = Field(
        default=(0.35, 0.75), description="smallest and largest side after shrinking, as a share"
    )

    @field_validator("crop_scale", "crop_ratio", "soften_to")
    @classmethod
    def _ascending(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1]:
            raise ValueError(f"{pair[0]:g} to {pair[1]:g} is not a range above 0")
        return pair
