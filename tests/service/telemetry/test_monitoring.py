"""The dashboard, the alerts and the compose file refer to things that exist; alerts fire."""

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from models.drift import LEAST_IN_WINDOW
from tests.conftest import DEEPVIT
from tests.support.server import ROOT, running_server
from tests.support.waiting import until

MONITORING = ROOT / "service" / "telemetry" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "deepvit.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

# For each alert: series by name and labels, one value a minute, and the labels of what fires after
# 70 minutes, once by each replica or model that is concerned.
FIRES: dict[str, tuple[dict[str, str], list[dict[str, str]]]] = {
    "DeepViTDrift": (
        {
            'deepvit_monitor_drift{model="a",version="1",replica="x"}': "3x30 5x60",
            'deepvit_monitor_drift{model="a",version="1",replica="y"}': "3x90",
            'deepvit_monitor_drift_threshold{model="a",version="1",replica="x"}': "4.6x90",
            'deepvit_monitor_drift_threshold{model="a",version="1",replica="y"}': "4.6x90",
        },
        [{"model": "a", "version": "1", "replica": "x", "severity": "warning"}],
    ),
    "DeepViTMonitorBlind": (
        {
            'deepvit_monitor_samples_total{model="a",version="1",outcome="dropped"}': "0+5x90",
            'deepvit_monitor_samples_total{model="a",version="1",outcome="measured"}': "7x90",
            'deepvit_monitor_samples_total{model="b",version="1",outcome="dropped"}': "0+5x90",
            'deepvit_monitor_samples_total{model="b",version="1",outcome="measured"}': "0+1x90",
        },
        [{"model": "a", "version": "1", "severity": "warning"}],
    ),
    "DeepViTMonitorFails": (
        {
            'deepvit_monitor_samples_total{model="a",version="1",outcome="failed"}': "0+1x90",
            'deepvit_monitor_samples_total{model="b",version="1",outcome="failed"}': "0x90",
        },
        [{"model": "a", "version": "1", "severity": "warning"}],
    ),
    "DeepViTAway": (
        {
            'up{job="deepvit",instance="x:8000"}': "1x30 0x60",
            'up{job="deepvit",instance="y:8000"}': "1x90",
        },
        [{"job": "deepvit", "instance": "x:8000", "severity": "critical"}],
    ),
    "DeepViTErrors": (
        {
            'deepvit_requests_total{route="/classify",status="500"}': "0+2x90",
            'deepvit_requests_total{route="/classify",status="200"}': "0+98x90",
        },
        [{"severity": "critical"}],
    ),
    "DeepViTFull": (
        {
            'deepvit_images_total{model="a",version="1",fate="refused"}': "0+6x90",
            'deepvit_images_total{model="a",version="1",fate="accepted"}': "0+94x90",
            'deepvit_images_total{model="b",version="1",fate="refused"}': "0+4x90",
            'deepvit_images_total{model="b",version="1",fate="accepted"}': "0+96x90",
        },
        [{"model": "a", "version": "1", "severity": "warning"}],
    ),
    "DeepViTStoreAway": (
        {
            'deepvit_store_available{instance="x:8000",store="redis"}': "0x90",
            'deepvit_store_available{instance="y:8000",store="redis"}': "1x90",
        },
        [{"instance": "x:8000", "store": "redis", "severity": "warning"}],
    ),
}


@pytest.fixture(scope="module")
def scraped(repository: Path, photo: bytes) -> str:
    """The metrics of a server that has classified images, and measured enough for a verdict."""
    with (
        running_server(repository, monitor_sample=1) as server,
        server.client() as client,
    ):
        for measured in range(1, LEAST_IN_WINDOW + 1):
            client.post("/classify", files={"image": photo}).raise_for_status()
            until(partial(_has_measured, client, measured))
        return client.get("/metrics").text


def _has_measured(client: httpx.Client, images: int) -> bool:
    (model,) = client.get("/monitor", params={"model": DEEPVIT}).json()["models"]
    return bool(model["samples"]["measured"] == images)


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *(rule["expr"] for rule in ALERTS.values())])
def test_dashboard_and_alerts_ask_for_series_that_exist(expression: str, scraped: str) -> None:
    series = re.findall(r"\b(deepvit_\w+)(?:\{(\w+)[=~!]+\"([^\"]*)\"\})?", expression)
    assert series or expression.startswith("up{")
    for name, label, values in series:
        lines = [line for line in scraped.splitlines() if re.match(rf"{name}[{{ ]", line)]
        assert lines, name
        for value in values.replace("5..", "200").split("|") if label else []:
            assert any(f'{label}="{value}"' in line for line in lines), (name, value)


@pytest.mark.parametrize(
    "expression",
    [one for one in (*EXPRESSIONS, *(rule["expr"] for rule in ALERTS.values())) if " by (" in one],
)
def test_dashboard_and_alerts_group_by_labels_that_exist(expression: str, scraped: str) -> None:
    given_by_prometheus = {"instance", "job"}
    name = re.findall(r"deepvit_\w+", expression)[0]
    labels = set(re.findall(r"(\w+)=\"", "\n".join(re.findall(rf"{name}{{.*", scraped))))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= labels | given_by_prometheus


def test_every_panel_uses_the_provisioned_data_source() -> None:
    (source,) = load(MONITORING / "grafana" / "datasources" / "prometheus.yml")["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert (host in COMPOSE["services"], port) == (True, "9090")


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_loads_the_alerts_where_they_are_mounted() -> None:
    (rules,) = load(MONITORING / "prometheus.yml")["rule_files"]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["prometheus"]["volumes"])
    assert mounted[f"./service/telemetry/monitoring/{rules}"] == f"/etc/prometheus/{rules}"


def test_every_alert_says_what_is_the_matter_and_how_bad() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"]["summary"], name
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        _, fired = FIRES[name]
        assert used <= set(fired[0]), name


@needs_promtool
def test_prometheus_can_read_its_configuration() -> None:
    assert PROMTOOL
    subprocess.run([PROMTOOL, "check", "config", str(MONITORING / "prometheus.yml")], check=True)


@needs_promtool
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_for_what_it_is_about_and_nothing_else(name: str, tmp_path: Path) -> None:
    assert PROMTOOL
    series, fired = FIRES[name]
    found = [
        {
            "eval_time": "70m",
            "alertname": name,
            "exp_alerts": [{"exp_labels": labels} for labels in fired],
        }
    ]
    # What an alert says depends on its numbers; here it is enough for whom it fires.
    rules = load(MONITORING / "alerts.yml")
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": found,
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": [test]}))
    result = subprocess.run(
        [PROMTOOL, "test", "rules", str(path)], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


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
