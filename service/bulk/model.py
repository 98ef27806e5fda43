"""The one version of one model that a run asks."""

from models.manifest import Manifest
from service.assembly import local_engines
from service.bulk.settings import BulkSettings
from service.errors import StartupError
from service.inference.files import Files
from service.inference.folder import Folder, Found, printable
from service.inference.served import QueueOptions, ServedModel, load

_ANY = 2**31


def load_model(settings: BulkSettings) -> ServedModel:
    """Loaded and warmed up, as a server would serve it. Raises `StartupError`."""
    engines, unbounded = local_engines(settings), QueueOptions(_ANY)  # a run bounds its queue
    return load(_found(settings), engines, unbounded)


def read_manifest(settings: BulkSettings) -> Manifest:
    """Its manifest alone. Raises `StartupError`."""
    return Files(_found(settings).path).manifest


def _found(settings: BulkSettings) -> Found:
    folder = Folder(settings.model_repository)
    named = f"model {printable(settings.model)} in {folder}"
    try:
        versions = folder.versions(settings.model, _ANY)
    except OSError as exc:
        raise StartupError(f"no {named}: {exc.strerror}") from exc
    if not versions:
        raise StartupError(f"no {named}")
    version = settings.version or max(versions)
    if version not in versions:
        there = ", ".join(map(str, sorted(versions)))
        raise StartupError(f"no version {version} of {named}; there are {there}")
    return versions[version]
