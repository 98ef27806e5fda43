"""`python -m tests.triton`: ask a tritonserver and this service the same, and record both.

`--prepare FOLDER` makes a model repository for tritonserver. Start it afresh before each run, with
`--model-control-mode=explicit --load-model='*'`; then `--http HOST:PORT --grpc HOST:PORT` asks it.
docs/triton.md says where to get one.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import grpc
import httpx

from tests.service.oip.grpc.calls import address
from tests.support import small
from tests.support.server import ROOT, running_command
from tests.support.waiting import until
from tests.triton.answers import Answer
from tests.triton.grpc import calls
from tests.triton.rest import MODEL, requests

RECORD = ROOT / "docs" / "triton.jsonl"


def ask_all(http: str, grpc_address: str) -> Iterator[tuple[str, str, Answer]]:
    """The answer to each request, in order: protocol, name, answer."""
    as_it_is = {"Accept-Encoding": "identity"}
    with httpx.Client(base_url=f"http://{http}", headers=as_it_is, timeout=60) as client:
        for request in requests():
            yield "REST", request.name, request.ask(client)
            if request.path.endswith("/unload"):
                until(lambda: _settled(client))
        with grpc.insecure_channel(grpc_address) as channel:
            for call in calls():
                yield "gRPC", call.name, call.ask(channel)
                if call.method == "RepositoryModelUnload":
                    until(lambda: _settled(client))


def _settled(client: httpx.Client) -> bool:
    """Whether no model is being unloaded, which Triton does after it has answered."""
    index = client.post("/v2/repository/index").json()
    return all(entry.get("state") != "UNLOADING" for entry in index)


def prepare(folder: Path) -> None:
    """A model of the same name with the same input, output and labels as ours."""
    model = folder / MODEL
    (model / "1").mkdir(parents=True)
    config = (small.REPOSITORY / MODEL / "config.pbtxt").read_text()
    python = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    (model / "config.pbtxt").write_text(python)
    shutil.copy(small.REPOSITORY / MODEL / "labels.txt", model)
    shutil.copy(Path(__file__).with_name("model.py"), model / "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.triton", description=__doc__)
    parser.add_argument("--prepare", type=Path, help="where to make the model repository")
    parser.add_argument("--http", help="HOST:PORT of tritonserver's HTTP")
    parser.add_argument("--grpc", help="HOST:PORT of tritonserver's gRPC")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(small.REPOSITORY / MODEL, Path(folder) / MODEL)
        with running_command(Path(folder), grpc_port=0) as server:
            ours = list(ask_all(server.url.removeprefix("http://"), address(server)))
    theirs = list(ask_all(options.http, options.grpc))
    rows = [
        {"protocol": protocol, "name": name, "triton": asdict(triton), "ours": asdict(our)}
        for (protocol, name, triton), (_, _, our) in zip(theirs, ours, strict=True)
    ]
    RECORD.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    different = [row for row in rows if row["triton"] != row["ours"]]
    for row in different:
        print(row["protocol"], row["name"], row["triton"], row["ours"], sep="\n  ")
    print(f"{len(different)} of {len(rows)} answers differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
