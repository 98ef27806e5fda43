"""The image holds every module of this project that the service imports."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT

_COPY = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)
_STARTED = (
    "service.__main__",
    "service.imaging.worker",
    "service.oip.grpc.server",
    "service.store.redis",
    "service.telemetry.tracing",
)


def test_every_module_that_the_service_imports_is_copied() -> None:
    runtime = (ROOT / "Dockerfile").read_text().split("AS runtime")[-1]
    copied = [source for line in _COPY.findall(runtime) for source in line.split()]
    assert "service" in copied
    for module in _imported():
        parents = map(str, module.parents)
        assert any(map(module.match, copied)) or not set(copied).isdisjoint(parents), module


def _imported() -> list[Path]:
    code = (
        f"import sys, importlib\nfor name in {_STARTED}: importlib.import_module(name)\n"
        "for module in list(sys.modules.values()):\n"
        "    print(getattr(module, '__file__', None) or '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    inside = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(ROOT))]
    found = [path.relative_to(ROOT) for path in inside]
    return [path for path in found if path.parts[0] in ("models", "service", "export")]
