"""Who takes part in the serving benchmark, and the set-ups that each peer is tried with.

Each peer gets up to six set-ups, taken from the documentation that its file names. Ours runs with
its defaults and is tried with no other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from service import native
from service.inference.cpus import available_cpus
from tests.bench import environments
from tests.bench.peers.given import Setup
from tests.bench.peers.triton_onnx import MODEL as TRITON_MODEL
from tests.bench.servers import OURS, OURS_MODULE, Kind

_PEERS = "tests.bench.peers."
_BATCH = 32
_CORES = available_cpus()

_ALONE = (  # each image by itself
    Setup(1, _CORES),
    Setup(1, _CORES, spin=False),
    Setup(1, 1),
    Setup(_CORES, 1),
    Setup(_CORES, _CORES, spin=False),
    Setup(2 * _CORES, 1),
)
_LITSERVE = (
    Setup(_CORES, 1),
    Setup(_CORES, 1, True, _BATCH, 0),
    Setup(_CORES, 1, True, _BATCH, 2),
    Setup(_CORES, 1, True, _BATCH, 10),
    Setup(1, _CORES, False, _BATCH, 0),
    Setup(1, _CORES, False, _BATCH, 5),
)
_MOSEC = (
    Setup(_CORES, 1),
    Setup(_CORES, 1, True, _BATCH, 1),
    Setup(_CORES, 1, True, _BATCH, 5),
    Setup(1, _CORES, False, _BATCH, 1),
    Setup(1, _CORES, False, _BATCH, 10),
    Setup(1, _CORES, False, _BATCH, 1, decoders=1),
)
_BENTOML = (
    Setup(1, _CORES, False),
    Setup(_CORES, 1),
    Setup(2 * _CORES, 1),
    Setup(1, _CORES, False, _BATCH, None, decoders=1),
    Setup(_CORES, 1, True, _BATCH, None, decoders=1),
    Setup(_CORES, 1, True, _BATCH, None, decoders=_CORES),
)
_TRITON = (
    Setup(_CORES, 1),
    Setup(_CORES, 1, True, _BATCH, 0),
    Setup(_CORES, 1, True, _BATCH, 2),
    Setup(_CORES, 1, True, _BATCH, 10),
    Setup(1, _CORES, False, _BATCH, 0),
    Setup(2 * _CORES, 1, True, _BATCH, 0),
)


def _as_it_is(kind: Kind) -> Kind:
    return kind


def _with_bentoml(kind: Kind) -> Kind:
    return replace(kind, python=environments.bentoml_python())


def _with_triton(kind: Kind) -> Kind:
    return replace(kind, environment=(("BENCH_TRITON", str(environments.triton_folder())),))


@dataclass(frozen=True)
class Entry:
    """A peer before it is known which of its set-ups is the fastest."""

    kind: Kind
    setups: tuple[Setup, ...]
    prepare: Callable[[Kind], Kind] = field(default=_as_it_is)
    runs_onnx: bool = True  # so that it can register our kernels

    def kinds(self) -> list[Kind]:
        """One for each set-up that differs here. Raises `CannotInstall`."""
        kind = self.prepare(self.kind)
        setups = dict.fromkeys(self.setups)  # on one core some are the same
        return [replace(kind, name=f"{kind.name}: {setup}", setup=setup) for setup in setups]


SERVICE = Kind(OURS, OURS_MODULE, path="/classify")
ENTRIES = (
    Entry(Kind("FastAPI, ONNX Runtime", f"{_PEERS}fastapi_onnx"), _ALONE),
    Entry(Kind("FastAPI on the event loop, ONNX Runtime", f"{_PEERS}fastapi_async_onnx"), _ALONE),
    Entry(
        Kind("FastAPI, PyTorch", f"{_PEERS}fastapi_torch"),
        tuple(setup for setup in _ALONE if setup.spin),
        runs_onnx=False,
    ),
    Entry(Kind("LitServe", f"{_PEERS}litserve_onnx"), _LITSERVE),
    Entry(Kind("mosec", f"{_PEERS}mosec_onnx"), _MOSEC),
    Entry(Kind("BentoML", f"{_PEERS}bentoml_onnx"), _BENTOML, _with_bentoml),
    Entry(
        Kind(
            "Triton, Python backend",
            f"{_PEERS}triton_onnx",
            path=f"/v2/models/{TRITON_MODEL}/infer",
            headers="Inference-Header-Content-Length: 0\r\n",
        ),
        _TRITON,
        _with_triton,
    ),
)


def with_kernels(kind: Kind) -> Kind | None:
    """The same peer with our kernels registered, if they are compiled."""
    if not native.LIBRARY.exists():
        return None
    return replace(kind, name=f"{kind.name}, our kernels", kernels=True)
