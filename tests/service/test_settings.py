"""Flags and variables mean the same, and a wrong setting is named before anything starts."""

import os
from pathlib import Path
from typing import Any, cast

import pytest
from annotated_types import Ge, Gt, Le
from pydantic import SecretStr

from service.errors import StartupError
from service.inference.cpus import available_cpus
from service.settings.server import Settings

# Every setting: a written value, and the value that it means.
WRITTEN: dict[str, tuple[str, Any]] = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "grpc_port": ("0", 0),
    "model_repository": ("/srv/models", Path("/srv/models")),
    "default_model": ("deepvit", "deepvit"),
    "provider": ("cuda", "cuda"),
    "precision": ("fp16", "fp16"),
    "attention": ("plain", "plain"),
    "kernel": ("avx2", "avx2"),
    "cuda_graphs": ("false", False),
    "reduced_decode": ("true", True),
    "intra_op_threads": ("3", 3),
    "decode_threads": ("5", 5),
    "max_batch_size": ("7", 7),
    "max_queue_images": ("9", 9),
    "max_wait_ms": ("2.5", 2.5),
    "request_timeout_s": ("4", 4.0),
    "keep_alive_s": ("75", 75),
    "served_versions": ("2", 2),
    "require_all_models": ("false", False),
    "repository_poll_s": ("10", 10.0),
    "drain_delay_s": ("0", 0.0),
    "drain_timeout_s": ("6", 6.0),
    "api_keys": ("a,b", SecretStr("a,b")),
    "allowed_hosts": ("a.example, *.b.example", "a.example, *.b.example"),
    "cors_origins": ("https://a.example", "https://a.example"),
    "model_control": ("off", "off"),
    "monitor_sample": ("0.25", 0.25),
    "root_path": ("/apps/deepvit", "/apps/deepvit"),
    "log_format": ("text", "text"),
    "max_upload_bytes": ("1024", 1024),
    "max_inflight_bytes": ("2048", 2048),
    "max_inflight_uploads": ("6", 6),
    "max_image_pixels": ("1000", 1000),
    "max_decode_s": ("3", 3),
    "max_connections": ("7", 7),
    "image_formats": ("jpeg,tiff", "jpeg,tiff"),
    "max_request_images": ("2", 2),
    "max_answer_bytes": ("2048", 2048),
    "max_unsent_bytes": ("4096", 4096),
    "write_timeout_s": ("1.5", 1.5),
    "store_url": ("rediss://cache:6380/1", SecretStr("rediss://cache:6380/1")),
    "store_timeout_s": ("0.2", 0.2),
    "store_max_bytes": ("4096", 4096),
    "store_ttl_s": ("0.5", 0.5),
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("DEEPVIT_")]:
        monkeypatch.delenv(name)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return "DEEPVIT_" + name.upper()


def test_every_setting_has_a_row() -> None:
    assert WRITTEN.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", WRITTEN)
def test_flag_and_variable_mean_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written, meant = WRITTEN[name]
    changed = Settings.load([]).model_copy(update={name: meant})
    assert changed != Settings.load([])
    assert Settings.load([flag(name), written]) == changed
    monkeypatch.setenv(variable(name), written)
    assert Settings.load([]) == changed


def test_flags_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPVIT_PORT", "1")
    assert Settings.load([]).port == 1
    assert Settings.load(["--port", "2"]).port == 2


def test_an_empty_variable_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPVIT_PORT", "")
    assert Settings.load([]).port == Settings.model_fields["port"].default


def test_unknown_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPVIT_PROT", "80")
    monkeypatch.setenv("DEEPVIT_BATCH", "")
    with pytest.raises(StartupError, match=r"no such setting: DEEPVIT_BATCH, DEEPVIT_PROT$"):
        Settings.load([])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("provider", "tpu"),
        ("intra_op_threads", "0"),
        ("max_batch_size", "1.5"),
        ("store_timeout_s", "0"),
        ("store_ttl_s", "0"),
        ("store_ttl_s", "nan"),
        ("root_path", "deepvit"),
        ("root_path", "/deepvit/"),
        ("root_path", "//deepvit.example"),
        ("root_path", "/deepvit\n"),
        ("api_keys", ","),
        ("api_keys", " "),
        ("api_keys", " , ,"),
        ("api_keys", "a-key,\tanother\nkey"),
        ("api_keys", f"a-key,{'k' * 5000}"),
        ("cors_origins", ","),
        ("cors_origins", " "),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "*,https://a.example/path"),
        ("cors_origins", "null"),
        ("allowed_hosts", ","),
        ("allowed_hosts", " "),
        ("allowed_hosts", "https://a.example"),
        ("allowed_hosts", "a.example:8000"),
        ("allowed_hosts", "a.*.example"),
        ("allowed_hosts", ".a.example"),
        ("allowed_hosts", "a.example b.example"),
        ("model_control", "yes"),
    ],
)
def test_a_wrong_value_is_named(name: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match=f"wrong setting: {name}: "):
        Settings.load([flag(name), written])
    monkeypatch.setenv(variable(name), written)
    with pytest.raises(StartupError, match=f"wrong setting: {name}: "):
        Settings.load([])


NUMBERS = (int, float, int | None)
BEYOND_ALL = ("-inf", "inf", "nan", "many", "9" * 5000)


def bounds() -> list[tuple[str, str]]:
    """Each setting with declared bounds, and the nearest values outside them."""
    found = []
    for name, field in Settings.model_fields.items():
        step = 1e-9 if field.annotation is float else 1.0
        declared: list[Any] = field.metadata
        for bound in declared:
            if isinstance(bound, Ge):
                found.append((name, f"{cast(float, bound.ge) - step:g}"))
            if isinstance(bound, Gt):
                found.append((name, str(bound.gt)))
            if isinstance(bound, Le):
                found.append((name, f"{cast(float, bound.le) + step:.12g}"))
        if field.annotation in NUMBERS:
            found += [(name, beyond) for beyond in BEYOND_ALL]
    return found


def test_every_number_has_a_bound() -> None:
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in NUMBERS}
    assert numbers == {name for name, value in bounds() if value not in BEYOND_ALL}


@pytest.mark.parametrize(("name", "written"), bounds())
def test_every_limit_is_refused_beyond_its_bounds(name: str, written: str) -> None:
    with pytest.raises(StartupError, match=f"wrong setting: {name}: ") as refusal:
        Settings.load([f"{flag(name)}={written}"])
    assert "\n" not in refusal.value.detail


@pytest.mark.parametrize("name", ["api_keys", "allowed_hosts"])
@pytest.mark.parametrize(
    "arguments", [["FLAG", ""], ["FLAG="], ["FLAG", "None"], ["FLAG=None"], []]
)
def test_what_would_open_the_service_must_not_be_empty(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not arguments:
        monkeypatch.setenv(variable(name), "")
    with pytest.raises(StartupError, match=f"wrong setting: {name}: it is empty; leave it out"):
        Settings.load(["--port", "1", *(part.replace("FLAG", flag(name)) for part in arguments)])


def test_no_message_repeats_a_secret() -> None:
    with pytest.raises(StartupError, match=r"api_keys: a key has a control character") as refusal:
        Settings.load(["--api-keys", "letmein\0,"])
    assert "letmein" not in refusal.value.detail


def test_parts_are_read_without_their_spaces_and_empty_ones_left_out() -> None:
    settings = Settings.load(
        [
            *("--api-keys", " first key ,, second,"),
            *("--cors-origins", "https://A.example , http://b.example:8080,"),
            *("--allowed-hosts", " API.example.org , *.b.example, [::1], 10.0.0.1 ,"),
        ]
    )
    assert settings.keys == ["first key", "second"]
    assert settings.origins == ["https://a.example", "http://b.example:8080"]
    assert settings.host_names == ["api.example.org", "*.b.example", "[::1]", "10.0.0.1"]


@pytest.mark.parametrize(
    ("host", "allowed_hosts", "meant"),
    [
        ("127.0.0.1", None, []),
        ("localhost", None, []),
        ("::1", None, []),
        ("0.0.0.0", None, None),
        ("192.168.0.7", None, None),
        ("127.0.0.1", "*", None),
        ("127.0.0.1", "a.example, *", None),
        ("0.0.0.0", "a.example", ["a.example"]),
    ],
)
def test_host_names_are_checked_on_loopback_or_if_told_to(
    host: str, allowed_hosts: str | None, meant: list[str] | None
) -> None:
    allowed = [] if allowed_hosts is None else ["--allowed-hosts", allowed_hosts]
    assert Settings.load(["--host", host, *allowed]).host_names == meant


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(StartupError, match=r"provider: .*; port: "):
        Settings.load(["--port", "x", "--provider", "y"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 8),
    ],
    ids=[
        "no control group",
        "version 2 without limit",
        "version 2",
        "version 2, part of a processor over",
        "version 2, part of a processor",
        "version 2, more than there are",
        "version 2, empty",
        "version 1",
        "version 1 without limit",
        "version 1 without period",
    ],
)
def test_the_control_group_limits_the_processors(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == expected
