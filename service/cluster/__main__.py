"""`python -m service.cluster`: serve on Ray, on a cluster or on this machine alone."""

import signal
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from service.cluster.settings import ClusterSettings
from service.errors import StartupError

if TYPE_CHECKING:
    from service.cluster.engines import Engines


def main(arguments: list[str], engine: "type[Engines] | None" = None) -> int:
    """Exit status 0 after a shutdown, 1 with one clear line if the start fails."""
    try:
        settings = ClusterSettings.load(arguments)
        settings.check()
        start = import_module("service.cluster.start")  # Ray, which takes seconds
        start.start(settings, engine)
    except (StartupError, RuntimeError, ConnectionError) as exc:
        print(f"service.cluster: {exc}", file=sys.stderr)
        return 1
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # Ray has set handlers of its own, which exit
        signal.signal(number, lambda *_: stopping.set())
    print(f"running on http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
    stopping.wait()
    start.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
