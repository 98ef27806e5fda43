"""What deploy/ says to Kubernetes, KubeRay and KServe is valid, and names what the service has."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.cluster import ENVIRONMENT
from service.cluster.settings import ClusterSettings
from service.settings.server import Settings
from tests.support.server import ROOT, Server

FOLDER = ROOT / "deploy" / "kubernetes"
KUBERNETES = "1.33"
BASE = sorted((FOLDER / "base").glob("*.yaml"))
OVERLAYS = ("cpu", "gpu")
Found = dict[str, Any]


def documents(path: Path) -> list[Found]:
    return list(yaml.safe_load_all(path.read_text()))


def overlaid(overlay: str) -> Found:
    """The service's Deployment with the overlay's patch, as Kustomize merges it."""
    (patch,) = documents(FOLDER / overlay / "kustomization.yaml")[0]["patches"]
    (deployment,) = documents(FOLDER / "base" / "deployment.yaml")
    found: Found = merged(deployment, yaml.safe_load(patch["patch"]))
    return found


def merged(base: Any, patch: Any) -> Any:
    """Mappings by key, and lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {
            key: merged(base[key], value) if key in base else value for key, value in patch.items()
        }
    if isinstance(base, list) and isinstance(patch, list):
        named = {item["name"]: item for item in base}
        return list(merged(named, {item["name"]: item for item in patch}).values())
    return patch


def containers(found: Any) -> Iterator[Found]:
    """Every container anywhere in a document."""
    if isinstance(found, dict):
        yield from found.get("containers", ())
        for value in found.values():
            yield from containers(value)
    elif isinstance(found, list):
        for value in found:
            yield from containers(value)


def ours() -> list[Found]:
    """Every container that runs the service by itself."""
    whole = [overlaid(overlay) for overlay in OVERLAYS]
    whole += documents(FOLDER / "kserve" / "inferenceservice.yaml")
    return [
        container for document in whole for container in containers(document) if "env" in container
    ]


def variables(container: Found) -> Iterator[tuple[str, str]]:
    """Names and values, those of secrets as somebody could have made them."""
    for variable in container["env"]:
        yield variable["name"], variable.get("value", "key-of-a-client")


def probes(container: Found) -> Iterator[Found]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            yield container[name]["httpGet"]


@pytest.mark.parametrize("path", BASE, ids=lambda path: path.name)
def test_built_in_kinds_follow_their_schemas(path: Path) -> None:
    for document in documents(path):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_so_does_what_an_overlay_makes_of_them(overlay: str) -> None:
    kubernetes_validate.validate(overlaid(overlay), KUBERNETES, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    wrong = merged(overlaid("cpu"), {"spec": {"replica": 2}})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_every_file_of_the_base_is_applied() -> None:
    (kustomization,) = documents(FOLDER / "base" / "kustomization.yaml")
    assert {*kustomization["resources"], "kustomization.yaml"} == {path.name for path in BASE}


@pytest.mark.parametrize("container", ours(), ids=lambda found: found["name"])
def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    container: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert container["env"]
    for name, value in variables(container):
        assert name.startswith("DEEPVIT_")
        monkeypatch.setenv(name, value)
    assert Settings.load([]).keys == ["key-of-a-client"]


@pytest.mark.parametrize("container", ours(), ids=lambda found: found["name"])
def test_keys_come_from_a_secret_that_may_be_missing(container: Found) -> None:
    (keys,) = (one for one in container["env"] if one["name"] == "DEEPVIT_API_KEYS")
    secret = keys["valueFrom"]["secretKeyRef"]
    assert (secret["name"], secret["key"], secret["optional"]) == ("deepvit", "api-keys", True)
    made = "kubectl create secret generic deepvit --from-literal=api-keys=KEY"
    assert made in (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("container", ours(), ids=lambda found: found["name"])
def test_probes_and_ports_are_those_of_the_service(container: Found, server: Server) -> None:
    (port,) = container["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    found = list(probes(container))
    assert found
    with server.client() as client:
        for probe in found:
            assert probe["port"] in (port["name"], port["containerPort"])
            assert client.get(probe["path"]).status_code == 200


@pytest.mark.parametrize("container", ours(), ids=lambda found: found["name"])
def test_it_is_not_root_and_writes_to_tmp_only(container: Found) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_finish_its_requests(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = overlaid(overlay)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for name, value in variables(container):
        monkeypatch.setenv(name, value)
    settings = Settings.load([])
    waited_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = waited_s + settings.drain_delay_s + settings.drain_timeout_s
    assert pod["terminationGracePeriodSeconds"] > needed_s


def test_the_autoscaler_reads_a_metric_that_there_is(server: Server) -> None:
    (autoscaler,) = documents(FOLDER / "base" / "autoscaler.yaml")
    (metric,) = autoscaler["spec"]["metrics"]
    with server.client() as client:
        assert f"\n{metric['pods']['metric']['name']}{{" in client.get("/metrics").text
    assert (
        int(metric["pods"]["target"]["averageValue"])
        < Settings.model_fields["max_queue_images"].default
    )


def test_names_that_refer_to_each_other_agree() -> None:
    found = [document for path in BASE for document in documents(path)]
    services = {
        document["metadata"]["name"]: document["spec"]
        for document in found
        if document["kind"] == "Service"
    }
    labels = [
        document["spec"]["template"]["metadata"]["labels"]
        for document in found
        if document["kind"] == "Deployment"
    ]
    for service in services.values():
        assert any(service["selector"].items() <= label.items() for label in labels)
    for container in ours():
        for _, value in variables(container):
            if match := re.fullmatch(r"redis://([\w-]+):(\d+)", value):
                assert services[match[1]]["ports"][0]["port"] == int(match[2])


@pytest.mark.parametrize(
    "application",
    [
        *documents(ROOT / "deploy" / "ray.yaml")[0]["applications"],
        *yaml.safe_load(documents(FOLDER / "ray" / "rayservice.yaml")[0]["spec"]["serveConfigV2"])[
            "applications"
        ],
    ],
    ids=["ray.yaml", "rayservice.yaml"],
)
def test_ray_finds_the_application_and_its_settings(application: Found) -> None:
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    ClusterSettings(**application["args"]).check()


def test_ray_has_room_for_the_fewest_replicas() -> None:
    (service,) = documents(FOLDER / "ray" / "rayservice.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    settings = ClusterSettings(**application["args"])
    groups = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cpus = gpus = 0
    for group in groups:
        (container,) = containers(group)
        limits = container["resources"]["limits"]
        cpus += group["minReplicas"] * int(limits["cpu"])
        gpus += group["minReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    assert settings.fronts * settings.front_cpus + settings.engines * settings.engine_cpus <= cpus
    assert settings.engines * settings.engine_gpus <= gpus


def test_every_node_of_ray_has_its_environment_before_it_starts() -> None:
    (service,) = documents(FOLDER / "ray" / "rayservice.yaml")
    found = list(containers(service))
    assert len(found) == 3
    for container in found:
        named = {variable["name"]: variable["value"] for variable in container["env"]}
        assert named == ENVIRONMENT
        assert container["securityContext"]["runAsNonRoot"]
