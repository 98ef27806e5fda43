"""Clients that ask a cluster one question after the other, and what they were answered."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.conftest import DEEPVIT
from tests.support.cluster import Cluster
from tests.support.waiting import until

CLIENTS = 8
FRONT, ENGINE = "ray::ServeReplica:deepvit:front", "ray::ServeReplica:deepvit:engine"
LOST = "no answer"


class Load:
    """Clients that ask one after the other; what they were answered."""

    def __init__(self, cluster: Cluster, photo: bytes) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._photo = f"{cluster.url}/classify?model={DEEPVIT}&top_k=1", photo
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            self.go_on(10 * CLIENTS)
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def go_on(self, answers: int) -> None:
        """Until there are so many more good answers."""
        enough = self.outcomes["right"] + answers
        until(lambda: self.outcomes["right"] >= enough)

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stopping.is_set():
                try:
                    answer = client.post(self._url, files={"image": self._photo})
                except httpx.TransportError:
                    self.outcomes[LOST] += 1
                    continue
                self.outcomes[_outcome(answer)] += 1


def _outcome(answer: httpx.Response) -> str:
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:200]}"
    label = answer.json()["results"][0]["predictions"][0]["label"]
    return "right" if label == "cat" else f"wrong: {label}"  # of the small model, about the cat
