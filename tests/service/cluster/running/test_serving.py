"""Two fronts and one engine on a real Ray answer as one process does, under the same promises."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx

from tests.conftest import DEEPVIT, VIT
from tests.service.cluster.running.conftest import QUEUE
from tests.support.cluster import Cluster
from tests.support.processes import family, listening
from tests.support.waiting import PATIENCE_S, until

FRONT_PORTS = range(30000, 31000)  # where Ray lets HAProxy reach fronts


def fronts_that_answered(cluster: Cluster) -> set[str]:
    text = httpx.get(f"{cluster.url}/metrics", timeout=PATIENCE_S).text
    counted = re.findall(
        r'deepvit_images_total\{fate="answered".*?replica="(.*?)".*?\} (\S+)', text
    )
    return {replica for replica, count in counted if float(count)}


def test_answers_are_those_of_one_process_bit_for_bit(
    client: httpx.Client, clustered: httpx.Client, photo: bytes
) -> None:
    for model in (DEEPVIT, VIT):
        one, other = (
            session.post(f"/classify?model={model}&top_k=10", files={"image": photo}).json()
            for session in (client, clustered)
        )
        found, expected = other["results"][0], one["results"][0]
        assert found["predictions"] == expected["predictions"]
        for path in (
            f"/attention-maps?id=ID&model={model}&layer=all&head=all&query=all&format=npy",
            f"/similarity?id=ID&model={model}&stage=softmax",
            "/images/ID",
        ):
            answers = (
                session.get(path.replace("ID", image_id)).content.replace(image_id.encode(), b"ID")
                for session, image_id in ((client, expected["id"]), (clustered, found["id"]))
            )
            assert len(set(answers)) == 1


def test_an_answer_has_one_request_id_which_may_be_the_clients(clustered: httpx.Client) -> None:
    (given,) = clustered.get("/models").headers.get_list("x-request-id")
    assert given
    kept = clustered.get("/models", headers={"X-Request-Id": "mine"}).headers
    assert kept.get_list("x-request-id") == ["mine"]


def test_a_picture_has_one_id_which_is_valid_on_every_front(cluster: Cluster, photo: bytes) -> None:
    def classify() -> tuple[str, str]:
        """The id, and a link inside; over a new connection, so that any front may answer."""
        answer = httpx.post(
            f"{cluster.url}/classify", files={"image": photo}, timeout=PATIENCE_S
        ).json()
        return answer["results"][0]["id"], answer["results"][0]["links"]["attention_maps"]

    ((_, path),) = {classify() for _ in range(8)}

    def look(_: int) -> int:
        return httpx.get(cluster.url + path, timeout=PATIENCE_S).status_code

    def both_have_answered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(look, range(16))) == {200}
        return len(fronts_that_answered(cluster)) == 2

    until(both_have_answered)


def test_a_full_front_refuses_with_retry_after(cluster: Cluster, photo: bytes) -> None:
    clients = 4 * QUEUE
    limits = httpx.Limits(max_connections=clients)
    with (
        httpx.Client(base_url=cluster.url, timeout=PATIENCE_S, limits=limits) as client,
        ThreadPoolExecutor(clients) as pool,
    ):

        def post(_: int) -> httpx.Response:
            return client.post("/classify?similarity=true", files={"image": photo})

        answers = list(pool.map(post, range(2 * clients)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.json()["code"] for answer in refused} == {"queue-full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_clients_that_leave_free_what_they_held(cluster: Cluster, photo: bytes) -> None:
    """On the front and on the engine: some were waiting there, and in the end nothing is."""
    address = urlsplit(cluster.url)
    images = [("image", (f"{number}.jpg", photo)) for number in range(16)]
    request = httpx.Request("POST", cluster.url, files=images)
    body = request.read()
    head = (
        f"POST /classify?similarity=true HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {request.headers['content-type']}\r\n\r\n"
    )

    def called_off_on_the_engine() -> bool:
        with ExitStack() as leaving:
            for _ in range(10):
                connection = socket.create_connection((address.hostname, address.port))
                leaving.enter_context(connection)
                connection.sendall(head.encode() + body)
            for _ in range(20):  # they leave once some wait for the engine
                if in_flight(cluster, "deepvit_engine") > 1:
                    break
        return cluster.images("deepvit_engine")["cancelled"] > 0

    until(called_off_on_the_engine)
    for whose in ("deepvit", "deepvit_engine"):
        until(lambda whose=whose: in_flight(cluster, whose) == 0)  # type: ignore[misc]
    with cluster.client() as session:
        assert session.post("/classify", files={"image": photo}).status_code == 200


def in_flight(cluster: Cluster, whose: str) -> int:
    images = cluster.images(whose)
    assert images["accepted"] > 0
    return images["accepted"] - sum(
        images[fate] for fate in ("answered", "failed", "cancelled", "expired")
    )


def test_a_model_is_unloaded_and_loaded_on_every_front(
    cluster: Cluster, clustered: httpx.Client
) -> None:
    def statuses() -> set[int]:
        path = f"{cluster.url}/v2/models/{VIT}/ready"
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: httpx.get(path, timeout=PATIENCE_S), range(16))
            return {answer.status_code for answer in answers}

    assert clustered.post(f"/v2/repository/models/{VIT}/unload").status_code == 200
    assert statuses() == {404}
    assert clustered.post(f"/v2/repository/models/{VIT}/unload").status_code == 404
    assert clustered.post(f"/v2/repository/models/{VIT}/load").status_code == 200
    assert statuses() == {200}


def test_requests_are_taken_on_this_machine_only(cluster: Cluster) -> None:
    """By the ingress and by the fronts; Ray's own ports are another matter."""
    ports = {int(cluster.url.rpartition(":")[2]), *FRONT_PORTS}
    found = listening(family(cluster.process.pid))
    hosts = {host for host, port in found if port in ports}
    assert hosts == {"127.0.0.1"}
