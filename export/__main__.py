"""`python -m export CHECKPOINT --name NAME`: from a trained checkpoint to a served model.

The first argument may be one of `COMMANDS` instead, each with arguments of its own.
"""

import signal
import sys
from importlib import import_module
from types import FrameType

from export.options import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit status 0, or 1 with one line that says what to do."""
    arguments = sys.argv[1:] if arguments is None else arguments
    module = "export.command"
    if arguments and arguments[0] in COMMANDS:
        module, arguments = COMMANDS[arguments[0]], arguments[1:]
    status: int = import_module(module).main(arguments)  # imported now: a report needs no PyTorch
    return status


def run() -> int:
    """The same as a process of its own: a signal ends it, and leaves nothing unfinished."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _stop)
    try:
        return main()
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _stop(number: int, _: FrameType | None) -> None:
    """End as an exception does, so that what is in progress is cleaned up."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(run())
