"""Models that come and go on request, while others have work to do."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import DEEPVIT, VIT
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.server import running_server

MODEL = f"/v2/repository/models/{VIT}"


def test_a_model_comes_and_goes_beside_another_ones_traffic(repository: Path, photo: bytes) -> None:
    """No request to the other fails; orders that contradict each other end in one state."""
    with running_server(repository) as server, server.client() as client:
        before = answers_of_both_models(client, photo)
        over = threading.Event()

        def traffic(model: str) -> set[tuple[int, str]]:
            """Statuses, with the best class or the code of the error."""
            seen = set()
            while not over.is_set():
                found = client.post(f"/classify?model={model}", files={"image": photo})
                answer = found.json()
                best = "code" not in answer and answer["results"][0]["predictions"][0]["label"]
                seen.add((found.status_code, best or answer["code"]))
            return seen

        def order(verb: str) -> int:
            return client.post(f"{MODEL}/{verb}").status_code

        with ThreadPoolExecutor(12) as pool:
            steady = [pool.submit(traffic, DEEPVIT) for _ in range(2)]
            moving = pool.submit(traffic, VIT)
            try:
                for _ in range(3):
                    assert order("unload") == 200
                    gone = client.post(f"/classify?model={VIT}", files={"image": photo})
                    assert (gone.status_code, gone.json()["code"]) == (404, "unknown-model")
                    assert order("load") == 200
                    assert client.get(f"/v2/models/{VIT}/ready").status_code == 200
                statuses = set(pool.map(order, ["load", "unload", "unload", "load"] * 4))
            finally:
                over.set()
            for future in steady:
                assert future.result() == {(200, before[1][0]["label"])}
            assert moving.result() <= {(200, before[4][0]["label"]), (404, "unknown-model")}
        assert statuses <= {200, 404}
        ready = client.get(f"/v2/models/{VIT}/ready").status_code == 200
        listed = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in listed] == [DEEPVIT, *([VIT] if ready else [])]
        assert order("load") == 200
        assert answers_of_both_models(client, photo) == before
        counts = settled_counts(client)
        assert counts["failed"] == counts["cancelled"] == counts["expired"] == 0
    assert "Traceback" not in "".join(server.log)
