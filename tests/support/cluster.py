"""A real cluster on this machine: Ray, its HTTP ingress, fronts and engines, as users start it."""

import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import start
from tests.support.waiting import PATIENCE_S


@dataclass
class Cluster:
    process: subprocess.Popen[str]
    url: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def images(self, whose: str = "deepvit") -> Counter[str]:
        """Images by fate, summed over fronts (`deepvit`) or engines (`deepvit_engine`)."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).raise_for_status().text
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            if family.name == f"{whose}_images":
                for sample in family.samples:
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
    """Serve a model repository on a free port; `settings` are passed as DEEPVIT_ variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "intra_op_threads": 1,
        "decode_threads": 1,
        "front_cpus": 0.1,
        "engine_cpus": 0.1,
        "drain_delay_s": 0,
        **settings,
    }
    process = start(str(module), port, repository, settings)
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
