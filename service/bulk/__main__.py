"""`python -m service.bulk FOLDER|LIST --model NAME --output answers.parquet`: answers for files."""

import signal
import sys
from importlib import import_module

from service.assembly import needs_extra
from service.bulk.settings import BulkSettings
from service.errors import ServiceError
from service.telemetry import log


def main(arguments: list[str]) -> int:
    """Exit status 0 when every file has its row, else 1 and one clear line, or 128 + a signal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the run has its own
    try:
        settings = BulkSettings.load(arguments)
        log.configure("text")
        with needs_extra("bulk inference needs the package pyarrow", "bulk"):
            run = import_module("service.bulk.run")
        status: int = run.run(settings)
    except ServiceError as exc:
        print(f"service.bulk: {exc.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("service.bulk: stopped before any file was read", file=sys.stderr)
        return 128 + signal.SIGINT
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
