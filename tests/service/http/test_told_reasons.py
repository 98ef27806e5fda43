"""Why a version cannot be loaded: clients learn which and why, and nothing of where it lies."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.conftest import DEEPVIT
from tests.service.http.v2_requests import error
from tests.service.oip.grpc.calls import address
from tests.support.server import running_server
from tests.support.versions import add_version, copied

INTERNALS = ("traceback", "/tmp", "errors.pydantic", "github")


def truncated_weights(version: Path) -> None:
    """What `add_version` does with `damage`."""


def no_graph(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"not a graph")


def no_manifest(version: Path) -> None:
    (version / "manifest.json").write_text("{}")


def missing_file(version: Path) -> None:
    (version / "explain.onnx").unlink()


@pytest.mark.parametrize("spoil", [truncated_weights, no_graph, no_manifest, missing_file])
def test_clients_learn_why_and_the_log_where(
    repository: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    with (
        running_server(copied(repository, tmp_path), grpc_port=0) as server,
        server.client() as client,
        InferenceServerClient(address(server)) as triton,
    ):
        spoil(add_version(repository, tmp_path, damage=True))
        failed = client.post(f"/v2/repository/models/{DEEPVIT}/load")
        assert failed.status_code == 400
        with pytest.raises(InferenceServerException) as caught:
            triton.load_model(DEEPVIT)
        listed = client.post("/v2/repository/index").json()
        (entry,) = (one for one in listed if one["state"] == "UNAVAILABLE")
        named = triton.get_model_repository_index().models
        reasons = [one.reason for one in named if one.state == "UNAVAILABLE"]
        for told in (error(failed), caught.value.message(), entry["reason"], *reasons):
            assert f"{DEEPVIT}/2" in told
            assert "\n" not in told
            for internal in (*INTERNALS, str(tmp_path), str(repository)):
                assert internal not in told.lower(), told
    (line,) = (line for line in server.log if "loading failed" in line)
    assert str(tmp_path / DEEPVIT / "2") in line
