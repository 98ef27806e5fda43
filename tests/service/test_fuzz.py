"""schemathesis against a real server: every operation does what its documentation says."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import VIT
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.server import running_server

CONFIG = Path(__file__).with_name("fuzz.toml")
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


def test_no_operation_contradicts_its_documentation(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    """Statuses, content types and bodies; wrong requests are refused; no server error."""
    with running_server(repository) as server, server.client() as client:
        before = answers_of_both_models(client, photo)
        paths = client.get("/openapi.json").json()["paths"]
        command = [sys.executable, "-c", RUN, "--config-file", str(CONFIG), "run", "--no-color"]
        found = subprocess.run(
            [*command, f"{server.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        assert f"Tested: {sum(map(len, paths.values()))}\n" in found.stdout
        assert client.post(f"/v2/repository/models/{VIT}/load").status_code == 200
        assert answers_of_both_models(client, photo) == before
        settled_counts(client)
        assert client.get("/readyz").status_code == 200
    assert "Traceback" not in "".join(server.log)
