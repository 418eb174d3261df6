"""docker-compose.yml holds together: its shape, every mounted path, every verb, every variable, and a deep queue."""

import re
from pathlib import Path

import pytest
import yaml

from fettle.cli import VERBS
from fettle.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVICE_KEYS = {
    "build", "image", "restart", "environment", "depends_on", "command", "entrypoint", "ports", "volumes", "healthcheck",
    "stop_grace_period",
}  # fmt: skip
OURS = {"migrate", "collect", "detect", "work", "serve", "provision"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_top_level_is_what_compose_knows(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert "image" in service or "build" in service, name


def test_dependencies_exist_and_can_be_met(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, (name, other)
            match how["condition"]:
                case "service_healthy":
                    assert "healthcheck" in services[other], (name, other)
                case "service_completed_successfully":
                    assert services[other]["restart"] == "no", (name, other)
                case condition:
                    pytest.fail(f"{name}: unknown condition {condition}")


def test_every_mounted_path_exists(compose):
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), (name, source)
            else:
                assert source in compose["volumes"], (name, source)


def test_every_verb_exists_and_has_a_health_check(compose):
    for name in OURS:
        service = compose["services"][name]
        assert service["command"][0] in VERBS, name
        assert service["restart"] == "no" or "healthcheck" in service, name


def test_long_running_services_have_health_checks(compose):
    assert [n for n, s in compose["services"].items() if s.get("restart") != "no" and "healthcheck" not in s] == []


def test_our_variables_are_settings(compose):
    known = {f"FETTLE_{name.upper()}" for name in Settings.model_fields} | {"FETTLE_GRAFANA_DB_PASSWORD"}
    for name in OURS:
        assert set(compose["services"][name]["environment"]) <= known, name


def test_no_password_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    for variable, rest in re.findall(r"\$\{(\w*PASSWORD\w*)([^}]*)\}", text):
        assert rest.startswith(":?"), variable
        assert f"# {variable}=" in (ROOT / ".env.example").read_text(), variable


def test_the_broker_keeps_a_day():
    conf = dict(
        line.split(maxsplit=1)
        for line in (ROOT / "docker/mosquitto.conf").read_text().splitlines()
        if line and line[0] != "#"
    )
    assert conf["allow_anonymous"] == "false"
    assert conf["persistence"] == "true"
    assert conf["max_queued_messages"] == "0"
    assert int(conf["max_queued_bytes"]) >= 86_400 * 100 * 200


def test_dockerfile_copies_what_there_is():
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
