"""docker-compose.yml publishes nothing to other machines unless it is told to."""

import re
from typing import Any

import yaml

from service.settings.server import Settings
from tests.support.server import ROOT

Found = dict[str, Any]


def services() -> dict[str, Found]:
    found: dict[str, Found] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_ports_are_published_on_this_machine_alone() -> None:
    published = {name: found["ports"] for name, found in services().items() if "ports" in found}
    assert published == {
        "deepvit": ["${DEEPVIT_PUBLISH:-127.0.0.1}:8000:8000"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_keys_that_the_shell_has_set_reach_the_service() -> None:
    """Compose leaves out a variable without a value that the shell does not have."""
    variables = services()["deepvit"]["environment"]
    assert [name for name, value in variables.items() if value is None] == ["DEEPVIT_API_KEYS"]
    assert variables.keys() <= {f"DEEPVIT_{name.upper()}" for name in Settings.model_fields}


def test_the_service_answers_to_its_own_names_alone() -> None:
    """Inside it listens on all interfaces, so that it would not check them by itself."""
    written = services()["deepvit"]["environment"]["DEEPVIT_ALLOWED_HOSTS"]
    found = re.fullmatch(r"\$\{DEEPVIT_ALLOWED_HOSTS:-(.*)\}", written)
    assert found
    settings = Settings.load(["--host", "0.0.0.0", "--allowed-hosts", found[1]])
    assert settings.host_names == ["localhost", "deepvit"]
    assert "deepvit" in services()  # as other containers call it


def test_no_other_file_publishes_more() -> None:
    over = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
    assert not [name for name, found in over.items() if "ports" in found]
    page = (ROOT / "docs" / "operations.md").read_text()
    assert re.search(r"DEEPVIT_API_KEYS=\S.* DEEPVIT_PUBLISH=0\.0\.0\.0 .*docker compose up", page)
