"""The dashboard and the compose file refer to things that exist."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.server import ROOT

MONITORING = ROOT / "service" / "telemetry" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "deepvit.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def scraped(client: httpx.Client, photo: bytes) -> str:
    """The metrics of a server that has classified an image."""
    client.post("/classify", files={"image": photo}).raise_for_status()
    return client.get("/metrics").text


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_series_that_exist(expression: str, scraped: str) -> None:
    series = re.findall(r"\b(deepvit_\w+)(?:\{(\w+)[=~!]+\"([^\"]*)\"\})?", expression)
    assert series
    for name, label, values in series:
        lines = [line for line in scraped.splitlines() if re.match(rf"{name}[{{ ]", line)]
        assert lines, name
        for value in values.split("|") if label else []:
            assert any(f'{label}="{value}"' in line for line in lines), (name, value)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_groups_by_labels_that_exist(expression: str, scraped: str) -> None:
    given_by_prometheus = {"instance", "job"}
    name = re.findall(r"deepvit_\w+", expression)[0]
    labels = set(re.findall(r"(\w+)=\"", "\n".join(re.findall(rf"{name}{{.*", scraped))))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= labels | given_by_prometheus


def test_every_panel_uses_the_provisioned_data_source() -> None:
    (source,) = load(MONITORING / "grafana" / "datasources" / "prometheus.yml")["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert (host in COMPOSE["services"], port) == (True, "9090")


def test_prometheus_scrapes_the_service_where_it_listens() -> None:
    (job,) = load(MONITORING / "prometheus.yml")["scrape_configs"]
    (target,) = job["dns_sd_configs"]
    (published,) = COMPOSE["services"][target["names"][0]]["ports"]
    assert published.endswith(f":{target['port']}")


def test_compose_mounts_paths_that_exist() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            assert (ROOT / volume.split(":")[0]).exists(), volume


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
