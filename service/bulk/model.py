"""The one version of one model that a run asks."""

from service.assembly import local_engines
from service.bulk.settings import BulkSettings
from service.errors import StartupError
from service.inference.folder import Folder, printable
from service.inference.served import QueueOptions, ServedModel, load

_ANY = 2**31


def load_model(settings: BulkSettings) -> ServedModel:
    """Loaded and warmed up, as a server would serve it. Raises `StartupError`."""
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
    return load(versions[version], local_engines(settings), QueueOptions(_ANY))  # a run bounds it
