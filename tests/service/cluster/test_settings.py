"""What cannot work in a cluster is refused in one clear line, before anything is started."""

import os
import subprocess
import sys

import pytest

from service.cluster.settings import ClusterSettings
from tests.support.server import ROOT


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--fronts", "2"], "unless they share a store: set store_url to a Redis"),
        (["--fronts", "1", "--max-fronts", "2"], "unless they share a store"),
        (["--fronts", "1", "--grpc-port", "0"], "a cluster answers HTTP only"),
        (["--fronts", "1", "--port", "0"], "port cannot be 0"),
        (["--fronts", "0"], "wrong setting: fronts"),
    ],
    ids=["no store", "no store when scaled", "gRPC", "port", "no front"],
)
def test_a_wrong_setting_ends_the_start(flags: list[str], said: str) -> None:
    environment = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    found = subprocess.run(
        [sys.executable, "-m", "service.cluster", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("service.cluster: ")
    assert said in found.stderr
    assert found.stderr.count("\n") == 1


def test_where_ray_listens_decides_who_may_ask() -> None:
    """Its configuration is not among the settings, whose default host is a loopback address."""
    alone = ClusterSettings(fronts=1)  # type: ignore[call-arg]
    assert (alone.host_names, alone.clients_control_models) == ([], True)
    unknown = alone.listening_as_ray_says()
    assert (unknown.host_names, unknown.clients_control_models) == (None, False)
    told = ClusterSettings(fronts=1, host="127.0.0.1")  # type: ignore[call-arg]
    assert told.listening_as_ray_says() == told
