"""The settings of a bulk run: those of models and images, and what is read and written."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import CliImplicitFlag, CliPositionalArg, SettingsConfigDict

from service.settings.server import Settings
from service.settings.shared import SharedSettings


class BulkSettings(SharedSettings):
    """Answer for every picture of a folder or list, into Parquet files."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service.bulk")
    of_others: ClassVar[frozenset[str]] = frozenset(Settings.model_fields)  # of a server beside it

    source: CliPositionalArg[str] = Field(
        description="folder of pictures, or text file with one path a line, `-` for standard "
        "input; on Ray also an address, as s3://bucket/folder"
    )
    output: str = Field(
        description="folder for Parquet files; a run that was interrupted goes on with it"
    )
    model: str = Field(description="name of a model in the model repository")
    version: int | None = Field(
        None, ge=1, description="version of the model; if unset, the highest"
    )
    top_k: int = Field(5, ge=1, description="how many classes to answer, the most probable ones")
    logits: CliImplicitFlag[bool] = Field(False, description="add the logits of all classes")
    features: CliImplicitFlag[bool] = Field(
        False, description="add what the classifier head takes: the pooled, normed tokens"
    )
    class_rows: CliImplicitFlag[bool] = Field(
        False, description="add where the class token attends, in each stage, block and head"
    )
    similarity: CliImplicitFlag[bool] = Field(
        False, description="add how similar each block's maps are to those before (Eq. 2)"
    )
    token_measures: CliImplicitFlag[bool] = Field(
        False, description="add what is measured of the tokens behind each block"
    )
    part_images: int = Field(
        10_000,
        ge=1,
        description="most files of a part; larger parts are fewer and take more memory",
    )
    part_s: float = Field(
        60, gt=0, description="longest time until a part is written; a kill loses no more work"
    )
    ray: CliImplicitFlag[bool] = Field(
        False, description="run on Ray, with engines in processes of their own"
    )
    ray_address: str | None = Field(
        None, description="Ray cluster to join, or `auto`; if unset, one is started here"
    )
    engines: int = Field(1, ge=1, description="engines on Ray, usually one a GPU")
    engine_cpus: float = Field(1, ge=0, description="CPUs that Ray sets aside for an engine")
    engine_gpus: float = Field(0, ge=0, description="GPUs that Ray sets aside for an engine")
    max_file_bytes: int = Field(
        64 * 2**20, ge=1, description="largest file that is read; larger ones are unreadable"
    )
