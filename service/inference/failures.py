"""Why models of the repository could not be loaded, and when polling tries them again."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.inference.folder import Found

_logger = logging.getLogger(__name__)

_MAX_PAUSE = 64  # polls


@dataclass
class _Failure:
    reason: str
    found: Mapping[int, Found]  # by version, as it was tried
    pause: int  # polls to let pass
    passed: int = 0


class Failures:
    """Each is logged once, however often it happens.

    A version whose files have changed since is tried at the next poll, because it may have been
    copied completely by then. One whose files are the same is tried less and less often.
    """

    def __init__(self) -> None:
        self._of: dict[str, _Failure] = {}
        self._away = ""

    @property
    def reasons(self) -> dict[str, str]:
        """By the name of the model's folder."""
        return {name: failure.reason for name, failure in self._of.items()}

    def add(self, name: str, reason: str, found: Mapping[int, Found]) -> None:
        before = self._of.get(name)
        if before is None or before.reason != reason:
            _logger.error("loading failed: %s", reason)
        pause = 0
        if before is not None and before.found == found:
            pause = min(max(1, 2 * before.pause), _MAX_PAUSE)
        self._of[name] = _Failure(reason, found, pause)

    def wait(self, name: str, found: Mapping[int, Found]) -> bool:
        """Whether this poll should let a model pass."""
        failure = self._of.get(name)
        if failure is None or failure.found != found:
            return False
        failure.passed += 1
        return failure.passed <= failure.pause

    def remove(self, name: str) -> None:
        self._of.pop(name, None)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget models that are no longer in the folder."""
        self._of = {name: failure for name, failure in self._of.items() if name in names}

    def folder_is_away(self, reason: str) -> None:
        """Why nothing can be seen of any model; empty if the folder is there."""
        if reason and not self._away:
            _logger.warning("what is served stays: %s", reason)
        elif self._away and not reason:
            _logger.info("the model repository is back")
        self._away = reason
