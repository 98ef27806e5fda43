"""A real cluster on this machine: Ray, its HTTP ingress, fronts and engines, as users start it."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import family, words
from tests.support.server import start
from tests.support.sockets import reserved_port
from tests.support.waiting import PATIENCE_S


@dataclass
class Cluster:
    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ray_address(self) -> str:
        """Where the Ray that this process has started is joined; `auto` may find another one."""
        option = "--gcs-address="
        found = words(family(self.process.pid))
        return next(word.removeprefix(option) for word in found if word.startswith(option))

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def images(self, whose: str = "deepvit") -> Counter[str]:
        """Images by fate, summed over fronts (`deepvit`) or engines (`deepvit_engine`)."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S).raise_for_status().text
        found: Counter[str] = Counter()
        for metric in text_string_to_metric_families(text):
            if metric.name == f"{whose}_images":
                for sample in metric.samples:
                    found[sample.labels["fate"]] += round(sample.value)
        return found

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)


@contextmanager
def running_cluster(
    repository: Path, module: object = "service.cluster", **settings: object
) -> Iterator[Cluster]:
    """Serve a model repository, on a free port; `settings` are passed as DEEPVIT_ variables."""
    port = int(str(settings.pop("port", 0))) or reserved_port()
    settings = {
        "intra_op_threads": 1,
        "decode_threads": 1,
        "front_cpus": 0.1,
        "engine_cpus": 0.1,
        "drain_delay_s": 0,
        **settings,
    }
    with TemporaryDirectory() as folder:
        process = start(
            str(module), port, repository, settings, others=_ingress_of_its_own(Path(folder))
        )
        assert process.stderr is not None
        log = []
        try:
            for line in process.stderr:
                log.append(line)
                if line.startswith("running on "):
                    break
            else:
                raise RuntimeError("the cluster did not start:\n" + "".join(log))
            yield Cluster(process, f"http://127.0.0.1:{port}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)
            process.stderr.close()


def ingress_files(folder: Path) -> dict[str, str]:
    """Variables for what HAProxy writes, which by default has one place on a machine."""
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    }
    return {name: str(folder / file) for name, file in files.items()}


def _ingress_of_its_own(folder: Path) -> dict[str, str]:
    """Variables for files and ports that another cluster on this machine does not have."""
    ports = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
    return ingress_files(folder) | {name: str(reserved_port()) for name in ports}
