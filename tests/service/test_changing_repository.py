"""A server whose model repository does not hold still: files change, or are not complete."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DEEPVIT, VIT
from tests.support.answers import results
from tests.support.memory import Footprint
from tests.support.server import LARGEST_BATCH, running_server
from tests.support.versions import copied, rewrite
from tests.support.waiting import until

POLLED_S = 0.1
LABELS = [f"thing {index}" for index in range(10)]


def predictions(client: httpx.Client, photo: bytes, **query: Any) -> Any:
    (result,) = results(client.post("/classify", params=query, files={"image": photo}))
    return result["predictions"]


def index(client: httpx.Client) -> dict[str, Any]:
    """Reasons of the models that are not served, and "" of those that are."""
    listed = client.post("/v2/repository/index").json()
    return {entry["name"]: entry.get("reason", "") for entry in listed}


def test_nothing_that_happens_to_its_files_reaches_a_version_that_is_served(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    version = copied(repository, tmp_path) / DEEPVIT / "1"
    with running_server(tmp_path) as server, server.client() as client:
        before = predictions(client, photo)
        kept = client.get(f"/models/{DEEPVIT}").json()

        def truncate() -> None:
            with (version / "weights.bin").open("r+b") as weights:
                weights.truncate(4096)

        def replace() -> None:
            shutil.copyfile(repository / VIT / "1" / "weights.bin", tmp_path / ".other")
            (tmp_path / ".other").rename(version / "weights.bin")

        # Each is met by an explanation whose session has not been opened before.
        for damage, query in (
            (truncate, {"attention": True}),
            (replace, {"similarity": True}),
            (
                lambda: (version / "explain.onnx").write_bytes(b""),
                {"similarity": True, "stage": "softmax"},
            ),
            (lambda: shutil.rmtree(version.parent), {"attention": True, "similarity": True}),
        ):
            damage()
            assert predictions(client, photo) == before
            assert predictions(client, photo, **query) == before
        assert client.get(f"/models/{DEEPVIT}").json() == kept
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    "incomplete", ["explain.onnx", "weights.bin", "SHA256SUMS", "manifest.json"]
)
def test_a_version_is_served_once_it_has_been_copied_completely(
    repository: Path, photo: bytes, tmp_path: Path, incomplete: str
) -> None:
    """Until then polling says why it is not, and tries again whenever its files have changed."""
    whole = repository / VIT / "1"
    copied(repository, tmp_path)
    version = Path(shutil.copytree(whole, tmp_path / ".staged"))
    content = (whole / incomplete).read_bytes()
    if incomplete == "weights.bin":  # as rsync allocates what it is about to write
        (version / incomplete).write_bytes(bytes(len(content)))
    else:
        (version / incomplete).write_bytes(content[: len(content) // 2])
    (tmp_path / VIT).mkdir()
    version = version.rename(tmp_path / VIT / "1")
    with (
        running_server(tmp_path, repository_poll_s=POLLED_S, require_all_models=False) as server,
        server.client() as client,
    ):
        reason = index(client)[VIT]
        assert reason.startswith(f"{VIT}/1")
        assert str(tmp_path) not in reason
        assert len(reason.splitlines()) == 1
        refused = client.post(f"/classify?model={VIT}", files={"image": photo})
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown-model")
        assert client.get(f"/v2/models/{DEEPVIT}/ready").status_code == 200
        (version / incomplete).write_bytes(content)
        until(lambda: index(client)[VIT] == "")
        assert predictions(client, photo, model=VIT, attention=True)
    assert "Traceback" not in "".join(server.log)


def test_a_version_whose_files_have_changed_is_loaded_anew_or_stays_as_it_was(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    version = copied(repository, tmp_path) / DEEPVIT / "1"
    load = f"/v2/repository/models/{DEEPVIT}/load"
    with (
        running_server(tmp_path, max_batch_size=LARGEST_BATCH) as server,
        server.client() as client,
    ):
        before = predictions(client, photo)
        rewrite(version, labels=LABELS)
        assert predictions(client, photo) == before  # not asked for yet
        assert client.post(load).status_code == 200
        after = predictions(client, photo)
        assert [one["label"] for one in after] == [LABELS[one["index"]] for one in before]
        with (version / "weights.bin").open("r+b") as weights:
            weights.write(b"\xff")
        refused = client.post(load)
        assert refused.status_code == 400
        assert "weights.bin does not have the hash in SHA256SUMS" in refused.json()["error"]
        assert predictions(client, photo) == after
        assert index(client)[DEEPVIT]
        files = Footprint.of(server.process.pid).files
        resident = 0
        for round_ in range(6):
            shutil.copyfile(repository / DEEPVIT / "1" / "weights.bin", version / "weights.bin")
            assert client.post(load).status_code == 200
            if round_ == 1:  # by now memory that has been freed is used again
                resident = Footprint.of(server.process.pid).resident_bytes
        assert predictions(client, photo, attention=True) == after
        footprint = Footprint.of(server.process.pid)
        weights_bytes = (version / "weights.bin").stat().st_size
        assert footprint.resident_bytes - resident < 3 * weights_bytes  # after 4 more
        assert footprint.files <= files
        assert index(client)[DEEPVIT] == ""


def test_versions_without_hashes_are_served_and_named_in_the_log(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    """As they were exported before there were hashes."""
    version = copied(repository, tmp_path) / DEEPVIT / "1"
    rewrite(version, sums=None)
    (version / "SHA256SUMS").unlink()
    with running_server(tmp_path) as server, server.client() as client:
        assert predictions(client, photo)
    (line,) = (line for line in server.log if "cannot be verified" in line)
    assert str(version) in json.loads(line)["message"]


ODD_NAMES = [
    b"mod\xe8le", "模型".encode(), b"a b", b"<img src=x onerror=alert(1)>", b"a\nb", b"stats",
    b"%2e%2e", b"x" * 255, "\u202egnp".encode(),
]  # fmt: skip


def test_folders_whose_names_no_model_may_have_are_told_and_disturb_nothing(
    repository: Path, photo: bytes, tmp_path: Path
) -> None:
    copied(repository, tmp_path)
    for name in ODD_NAMES:
        Path(f"{tmp_path}/{name.decode(errors='surrogateescape')}/1").mkdir(parents=True)
    with running_server(tmp_path, require_all_models=False) as server, server.client() as client:
        found = index(client)
        assert found.pop(DEEPVIT) == ""
        assert len(found) == len(ODD_NAMES)
        assert {"mod\\xe8le", "模型", "a\\nb", "\\u202egnp", "stats"} <= found.keys()
        for reason in found.values():
            assert "is not the name of a model: at most 64 letters, digits" in reason
            assert reason.isprintable()
        for asked in ("x" * 255, "x" * 5000, "stats", "%ff", "%E6%A8%A1"):
            refused = client.post(f"/v2/repository/models/{asked}/load")
            assert (refused.status_code, "error" in refused.json()) == (404, True), asked
        assert predictions(client, photo)
        assert client.get("/metrics").status_code == 200
    for line in server.log:
        assert "Traceback" not in json.loads(line)["message"]


def test_one_broken_model_ends_a_start_in_one_line(repository: Path, tmp_path: Path) -> None:
    copied(repository, tmp_path)
    (tmp_path / VIT / "1").mkdir(parents=True)
    with pytest.raises(RuntimeError) as caught, running_server(tmp_path):
        pass
    said = str(caught.value).splitlines()[1:]
    missing = tmp_path / VIT / "1" / "manifest.json"
    assert said == [
        f"service: {missing} is missing: the version is damaged, or not copied completely yet"
    ]
