"""Which models are served: the highest versions of each folder in the model repository.

A new version, or one whose files have changed, is loaded and warmed up while the old one serves,
and then replaces it. The old one stops once the requests that it has taken are answered. Whatever
is wrong with one model, others are loaded, served and unloaded all the same.
"""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models.manifest import NAME_RULE, is_model_name
from service.errors import LoadFailed, StartupError, UnknownModel
from service.inference.engine import EngineMaker
from service.inference.failures import Failures
from service.inference.folder import Folder, Found, printable
from service.inference.served import QueueOptions, ServedModel, load


@dataclass(frozen=True)
class RepositoryEntry:
    """A version that is `ready`, or one that is not, for a reason.

    A model that has only just appeared in the folder has neither a version nor a reason.
    """

    name: str
    version: int | None = None
    ready: bool = False
    reason: str = ""


class ModelRepository:
    """Every model in a folder. Used from the event loop; loading runs on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        make_engine: EngineMaker,
        queue: QueueOptions,
        *,
        default_model: str | None = None,
        versions: int = 1,
        require_all: bool = True,
    ) -> None:
        """Load and warm up every model.

        Raises `StartupError` if one cannot be loaded; unless all are required, only if that is the
        default model, or if none can.
        """
        self._folder = Folder(folder)
        self._make_engine = make_engine
        self.queue = queue
        self.versions = versions  # the most that are served of each model
        self._served: dict[str, dict[int, ServedModel]] = {}  # highest version last
        self._failures = Failures()
        self._unloaded: dict[str, list[int]] = {}  # on request, so polling ignores them
        self._loading = ThreadPoolExecutor(1, "load")
        self._retiring: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        try:
            names = self._folder.models()
        except OSError as exc:
            raise StartupError(f"no model in {self._folder}: {exc.strerror}") from exc
        if not names:
            raise StartupError(f"no model in {self._folder}: export one with python -m export")
        if default_model and default_model not in names:
            raise StartupError(f"no model {default_model} in {self._folder}")
        for name in names:
            found: Mapping[int, Found] = {}
            try:
                found = self._find(name)
                self._served[name] = self._load(found, {})
            except StartupError as exc:
                if require_all or name == default_model:
                    self.stop()
                    raise
                self._failures.add(name, exc.detail, found)
        if not self._served:
            raise StartupError(f"no model in {self._folder} can be loaded: see the log")
        self.default = default_model or next(iter(self._served))

    def __iter__(self) -> Iterator[ServedModel]:
        """Every served version at this moment, also for other threads."""
        return (model for versions in list(self._served.values()) for model in versions.values())

    @property
    def failures(self) -> dict[str, str]:
        """Why the newest load of a model failed, by name; the version before it still serves."""
        return self._failures.reasons

    async def index(self) -> list[RepositoryEntry]:
        """Every served version, then the models in the folder that are not served."""
        try:
            names = await asyncio.to_thread(self._folder.models)
        except OSError:  # away
            names = []
        entries = [
            RepositoryEntry(model.manifest.name, model.manifest.version, ready=True)
            for model in self
        ]
        failures = self.failures
        entries += [
            RepositoryEntry(printable(name), reason=self._folder.without_path(failures[name]))
            for name in failures
        ]
        others = set(names) - self._served.keys() - failures.keys()
        entries += [
            RepositoryEntry(name, version, reason="unloaded")
            for name in sorted(others)
            for version in self._unloaded.get(name, ())
        ]
        new = sorted(others - self._unloaded.keys())
        return entries + [RepositoryEntry(printable(name)) for name in new]

    def get(self, name: str | None, version: int | None = None) -> ServedModel:
        """A version by name and number, by default the highest. Raises `UnknownModel`."""
        name = name or self.default
        versions = self._served.get(name)
        if not versions:
            raise UnknownModel(f"no model {name}; served: {', '.join(self._served)}")
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            served = ", ".join(map(str, versions))
            raise UnknownModel(f"no version {version} of {name}; served: {served}")
        return versions[version]

    def is_default(self, model: ServedModel) -> bool:
        """Whether requests that name no model get this one."""
        versions = self._served.get(self.default, {})
        return bool(versions) and model is versions[max(versions)]

    def served_versions(self, name: str) -> list[int]:
        """All versions of a model that are served, highest last."""
        return list(self._served.get(name, {}))

    @contextmanager
    def use(self, name: str | None, version: int | None = None) -> Iterator[ServedModel]:
        """A version, as `get` finds it, that is not stopped before the block ends."""
        model = self.get(name, version)
        model.requests += 1
        model.idle.clear()
        try:
            yield model
        finally:
            model.requests -= 1
            if not model.requests:
                model.idle.set()

    async def load(self, name: str) -> None:
        """Serve the versions of a model that the folder holds now; nothing is done if it does.

        Those served so far stay until the new ones are warmed up, or for good if loading fails.
        Raises `UnknownModel` or `LoadFailed`.
        """
        if not is_model_name(name):
            raise UnknownModel(f"{name[:64]!r} is not the name of a model: {NAME_RULE}")
        async with self._lock:
            self._unloaded.pop(name, None)
            await self._bring_up_to_date(name)

    async def ensure(self, name: str, version: int) -> ServedModel:
        """A version as the folder holds it now. Raises `UnknownModel` or `LoadFailed`."""
        served = self._served.get(name, {}).get(version)
        if served is not None:
            try:
                found = await asyncio.to_thread(self._folder.versions, name, self.versions)
            except OSError:  # away
                return served
            if version not in found or found[version].stamp == served.stamp:
                return served
        await self.load(name)
        return self.get(name, version)

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that use it are still answered. Raises `UnknownModel`."""
        async with self._lock:
            if name not in self._served:
                raise UnknownModel(f"no model {name}; served: {', '.join(self._served)}")
            self._unloaded[name] = self._retire_all(name)

    async def poll(self) -> None:
        """Load what has appeared or changed in the folder, unload what has disappeared.

        A folder that cannot be read, or in which there is no model at all, is away: it may have
        been unmounted, and what is served stays.
        """
        before = set(self._served)
        try:
            names = await asyncio.to_thread(self._folder.models)
        except OSError as exc:
            self._failures.folder_is_away(f"{self._folder} cannot be read: {exc.strerror}")
            return
        self._failures.folder_is_away("" if names else f"{self._folder} holds no model")
        if not names:
            return
        for name in names:
            async with self._lock:
                if name not in self._unloaded:
                    with suppress(LoadFailed, UnknownModel):  # logged; what is served stays
                        await self._bring_up_to_date(name, polled=True)
        async with self._lock:
            for name in before.difference(names) & self._served.keys():
                self._retire_all(name)
            self._failures.keep_only(names)

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish queued work and end every thread."""
        for model in self:
            model.stop(timeout_s)
        self._loading.shutdown(wait=False, cancel_futures=True)

    async def _bring_up_to_date(self, name: str, polled: bool = False) -> None:
        """Raises `UnknownModel` or `LoadFailed`."""
        serving = self._served.get(name, {})
        found: Mapping[int, Found] = {}
        try:
            found = await asyncio.to_thread(self._find, name)
            if not found:
                raise UnknownModel(f"no version of {name} in the model repository")
            if polled and self._failures.wait(name, found):
                return
            loop = asyncio.get_running_loop()
            served = await loop.run_in_executor(self._loading, self._load, found, serving)
        except StartupError as exc:
            self._failures.add(name, exc.detail, found)
            raise LoadFailed(self._folder.without_path(exc.detail)) from exc
        self._failures.remove(name)
        self._served[name] = served
        for number, model in serving.items():
            if served.get(number) is not model:
                self._retire(model)

    def _find(self, name: str) -> dict[int, Found]:
        """The versions that the folder says to serve. Raises `StartupError`."""
        if not is_model_name(name):
            raise StartupError(
                f"{self._folder}/{printable(name)} is not the name of a model: {NAME_RULE}"
            )
        try:
            return self._folder.versions(name, self.versions)
        except OSError as exc:
            raise StartupError(f"{self._folder}/{name} cannot be read: {exc.strerror}") from exc

    def _load(
        self, found: Mapping[int, Found], serving: Mapping[int, ServedModel]
    ) -> dict[int, ServedModel]:
        """All these versions, highest last: those being served, unless their files have changed.

        Raises `StartupError`.
        """
        served: dict[int, ServedModel] = {}
        new: list[ServedModel] = []
        try:
            for number in sorted(found):
                before = serving.get(number)
                if before is not None and before.stamp == found[number].stamp:
                    served[number] = before
                else:
                    served[number] = load(found[number], self._make_engine, self.queue)
                    new.append(served[number])
        except StartupError:
            for model in new:
                model.stop()
            raise
        return served

    def _retire_all(self, name: str) -> list[int]:
        """Serve a model no longer; the versions that were served."""
        versions = self._served.pop(name)
        self._failures.remove(name)
        for model in versions.values():
            self._retire(model)
        return list(versions)

    def _retire(self, model: ServedModel) -> None:
        async def when_idle() -> None:
            while model.requests:
                await model.idle.wait()
            await asyncio.to_thread(model.stop)

        task = asyncio.create_task(when_idle())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
