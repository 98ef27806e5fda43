"""`python -m service`: serve the model repository over HTTP."""

import signal
import sys

import uvicorn

from service import settings as settings_module
from service.app import build_runtime, create_app
from service.errors import StartupError


def main(arguments: list[str]) -> int:
    """Exit status 0 after a shutdown, 1 with one clear line if the start fails."""
    # uvicorn shuts down first and then raises the signal again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = settings_module.load(arguments)
        runtime = build_runtime(settings)
    except StartupError as exc:
        print(f"service: {exc.detail}", file=sys.stderr)
        return 1
    uvicorn.run(create_app(runtime), host=settings.host, port=settings.port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
