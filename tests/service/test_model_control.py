"""Who may load and unload models, over HTTP and gRPC."""

from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.settings.server import Settings
from tests.conftest import VIT
from tests.service.http.v2_requests import error
from tests.service.oip.grpc.calls import address
from tests.support.server import running_server

LOAD = f"/v2/repository/models/{VIT}/load"
UNLOAD = f"/v2/repository/models/{VIT}/unload"
HINTS = ("DEEPVIT_MODEL_CONTROL=on", "DEEPVIT_REPOSITORY_POLL_S")


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, True),
        ({"host": "127.0.0.2"}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "10.0.0.5"}, False),
        ({"host": "deepvit.example"}, False),
        ({"host": "0.0.0.0", "api_keys": "key"}, True),
        ({"host": "0.0.0.0", "model_control": "on"}, True),
        ({"model_control": "off"}, False),
        ({"api_keys": "key", "model_control": "off"}, False),
    ],
)
def test_by_default_clients_with_a_key_or_on_this_machine_control_models(
    settings: dict[str, str], allowed: bool
) -> None:
    assert Settings(**settings).clients_control_models == allowed  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"model_control": "off"}], ids=str)
def test_where_it_is_off_models_stay_as_they_are(
    repository: Path, settings: dict[str, str]
) -> None:
    with running_server(repository, grpc_port=0, **settings) as server, server.client() as client:
        for path in (UNLOAD, LOAD, "/v2/repository/models/none/load"):
            # The body would be too large: it is not even read.
            refused = client.post(path, content=bytes(100_000))
            assert refused.status_code == 403
            assert error(refused).startswith("Clients may not load or unload models here: ")
            assert all(hint in error(refused) for hint in HINTS)
        with InferenceServerClient(address(server).replace("0.0.0.0", "127.0.0.1")) as triton:
            for call in (triton.unload_model, triton.load_model):
                with pytest.raises(InferenceServerException, match="may not load") as caught:
                    call(VIT)
                assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
            assert triton.is_model_ready(VIT)
        assert {entry["state"] for entry in client.post("/v2/repository/index").json()} == {"READY"}
        assert (
            'deepvit_rejects_total{reason="model-control-off"} 5.0' in client.get("/metrics").text
        )


def test_without_a_key_nobody_is_told_whether_it_is_off(repository: Path) -> None:
    with (
        running_server(repository, api_keys="key", model_control="off") as server,
        server.client() as client,
    ):
        assert client.post(UNLOAD).status_code == 401
        assert client.post(UNLOAD, headers={"X-API-Key": "key"}).status_code == 403


def test_with_a_key_models_are_unloaded_from_anywhere(repository: Path) -> None:
    with (
        running_server(repository, api_keys="key", host="0.0.0.0") as server,
        server.client() as client,
    ):
        client.headers["X-API-Key"] = "key"
        assert client.post(UNLOAD).status_code == 200
        assert client.get(f"/v2/models/{VIT}/ready").status_code == 404
        assert client.post(LOAD).status_code == 200
