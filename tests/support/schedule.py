"""A plugin of pytest: which tests run first, and which of several processes (xdist) runs them."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from service.inference.cpus import available_cpus

# Modules that take longest. They start first, so that no process is left alone with one at the end.
_FIRST = (
    "tests/service/cluster/running/test_serving.py",
    "tests/service/cluster/running/test_bulk.py",
    "tests/service/cluster/running/test_monitor.py",  # after them: it changes the cluster
    "tests/service/test_endurance.py",
    "tests/docs/test_examples.py",
    "tests/export/test_bundled.py",
    "tests/export/test_formats.py",
    "tests/export/test_reuse.py",
    "tests/service/native/test_hostile.py",
    "tests/service/native/test_similarity.py",
    "tests/fuzz/test_fuzz.py",
    "tests/service/test_fuzz.py",
    "tests/explorer/test_accessibility.py",
    "tests/service/oip/grpc/test_hostile.py",
    "tests/service/test_hostile_images.py",
    "tests/service/imaging/test_preparer.py",
    "tests/service/store/test_redis.py",
    "tests/service/test_isolation.py",
    "tests/service/test_shutdown.py",
)
# Modules that share something costly run in one process: what traces networks imports the exporter
# once, but for the bundled networks, which take long and go where pages' commands export; what
# speaks gRPC shares a server; those of a cluster share that. The first that fits counts.
_TOGETHER = {
    "tests/docs/test_examples.py": "pages",
    "tests/export/test_bundled.py": "pages",
    "tests/export/": "exporting",
    "tests/service/test_reuse.py": "exporting",
    "tests/service/oip/grpc/": "gRPC",
    "tests/service/cluster/": "cluster",
}


class _ByModule(LoadFileScheduling):  # type: ignore[misc]
    """Modules stay whole, and some of them together."""

    def _split_scope(self, nodeid: str) -> str:
        together = (name for start, name in _TOGETHER.items() if nodeid.startswith(start))
        return next(together, nodeid.split("::")[0])


def pytest_configure(config: pytest.Config) -> None:
    """Hand modules out in our order."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: index for index, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More processes than CPUs, because many tests wait for a server or a browser."""
    return 2 * available_cpus()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByModule:
    return _ByModule(config, log)
