"""The Helm chart, rendered: pods have no rights, a valid configuration, and listed peers only."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from coordinator import __version__
from coordinator.mapping import load_entities
from coordinator.settings import load_settings

Manifest = dict[str, Any]
CHART = Path(__file__).parents[2] / "deploy" / "helm" / "coordinator"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
DRAIN_SECONDS = 30


@pytest.fixture(autouse=True)
def _helm() -> None:
    if shutil.which("helm") is None:
        pytest.skip("helm is not installed")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def template(values: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ("--namespace", "pay", "--kube-version", "1.29.0", "--values", str(values), *more)
    return helm("template", "shop", str(CHART), *options)


@functools.cache
def rendered(name: str, *more: str) -> list[Manifest]:
    done = template(CHART / "ci" / f"{name}-values.yaml", *more)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def one(kind: str, manifests: list[Manifest], suffix: str = "") -> Manifest:
    found = [
        each
        for each in manifests
        if each["kind"] == kind and each["metadata"]["name"] == f"shop-coordinator{suffix}"
    ]
    assert len(found) == 1, (kind, suffix)
    return found[0]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    return [each["spec"]["template"] for each in manifests if each["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_chart_is_linted(values: Path) -> None:
    done = helm("lint", "--strict", "--values", str(values), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_is_of_the_product_s_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_what_is_rendered() -> None:
    everything = {"ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget"}
    everything |= {"ScaledObject", "Service", "ServiceAccount", "ServiceMonitor"}
    assert {each["kind"] for each in rendered("everything")} == everything
    bare = ["ConfigMap", "Deployment", "Service", "ServiceAccount"]
    assert sorted(each["kind"] for each in rendered("bare")) == bare


@pytest.mark.parametrize("name", ["least", "everything", "bare"])
def test_no_pod_has_a_right(name: str) -> None:
    for pod in pods(rendered(name)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            for mount in container["volumeMounts"]:
                assert mount.get("readOnly") or mount["mountPath"] == "/tmp", mount
        assert not [each for each in spec["volumes"] if "hostPath" in each]


def test_no_token_at_the_account_either() -> None:
    account = one("ServiceAccount", rendered("least"))
    assert account["automountServiceAccountToken"] is False


def test_the_daemon_is_probed_and_given_time_to_drain() -> None:
    spec = one("Deployment", rendered("least"))["spec"]
    assert spec["replicas"] == 2
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    (container,) = pod["containers"]
    assert container["args"] == ["run"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["COORDINATOR_HTTP__LISTEN"] == "0.0.0.0:8080"
    assert environment["COORDINATOR_JOURNAL__MIGRATE"] == "false"
    keys = [each["topologyKey"] for each in pod["topologySpreadConstraints"]]
    assert "kubernetes.io/hostname" in keys


def test_selectors_find_the_daemons_and_not_the_migration() -> None:
    manifests = rendered("everything")
    deployment = one("Deployment", manifests)["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    job = one("Job", manifests, "-migrate")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        one("Service", manifests)["spec"]["selector"],
        one("PodDisruptionBudget", manifests)["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy", manifests)["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= job.items()
    of_job = one("NetworkPolicy", manifests, "-migrate")["spec"]["podSelector"]["matchLabels"]
    assert of_job.items() <= job.items()
    monitor = one("ServiceMonitor", manifests)["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= one("Service", manifests)["metadata"]["labels"].items()


def test_the_journal_is_migrated_before_the_daemons_come() -> None:
    manifests = rendered("everything")
    job = one("Job", manifests, "-migrate")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate"]
    volumes = job["spec"]["template"]["spec"]["volumes"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in volumes if "secret" in each}
    assert secrets == {"secrets": "coordinator-owner", "tls": "coordinator-tls"}
    needed = [
        job,
        one("ConfigMap", manifests, "-migrate"),
        one("NetworkPolicy", manifests, "-migrate"),
    ]
    notes = [each["metadata"]["annotations"] for each in needed]
    assert {each["helm.sh/hook"] for each in notes} == {"pre-install,pre-upgrade"}
    weights = [int(each["helm.sh/hook-weight"]) for each in notes]
    assert weights[0] > max(weights[1:]), "what the Job needs comes before it"
    # Nothing that is not a hook is there when the Job runs for the first time.
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize("name", ["least", "everything", "bare"])
def test_what_is_mounted_is_a_valid_configuration(name: str, tmp_path: Path) -> None:
    manifests = rendered(name)
    data = one("ConfigMap", manifests)["data"]
    pod = one("Deployment", manifests)["spec"]["template"]["spec"]
    volume = next(each for each in pod["volumes"] if each["name"] == "config")
    for item in volume["configMap"]["items"]:
        file = tmp_path / item["path"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(data[item["key"]].replace("/run/tls/", f"{tmp_path}/"))
    (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    settings = load_settings(tmp_path / "coordinator.toml", environ=environment)
    assert settings.http.listen == "0.0.0.0:8080"
    assert settings.journal.migrate is (name == "bare")
    assert [each.entity.name for each in load_entities(settings)] == ["account"]


def test_only_what_is_listed_can_be_reached() -> None:
    policy = one("NetworkPolicy", rendered("everything"))["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = [[each["port"] for each in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [5432], [27017], [9094]]
    assert all(rule["to"] for rule in policy["egress"]), "no peers would mean everybody"
    assert all(rule["from"] for rule in policy["ingress"])
    least = one("NetworkPolicy", rendered("least"))["spec"]
    assert "ingress" not in least
    assert [[each["port"] for each in rule["ports"]] for rule in least["egress"]] == [[53, 53]]


def test_replicas_are_left_to_the_autoscaler() -> None:
    manifests = rendered("everything")
    assert "replicas" not in one("Deployment", manifests)["spec"]
    scaled = one("ScaledObject", manifests)["spec"]
    assert scaled["scaleTargetRef"]["name"] == "shop-coordinator"
    assert scaled["triggers"][0]["metadata"]["consumerGroup"] == "shop"


def test_a_changed_configuration_is_a_new_pod() -> None:
    def checksum(manifests: list[Manifest]) -> str:
        template = one("Deployment", manifests)["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    changed = rendered("least", "--set", "entities.more\\.toml=# nothing")
    assert checksum(rendered("least")) == checksum(rendered("everything"))
    assert checksum(rendered("least")) != checksum(changed)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("terminationGracePeriodSeconds=20", "terminationGracePeriodSeconds"),
        ("user=0", "user"),
        ("replica=3", "replica"),
        ("config=", "config"),
        ("image.digest=latest", "digest"),
        ("env.COORDINATOR_HTTP__LISTEN=x", "COORDINATOR_HTTP__LISTEN"),
        ("autoscaling.enabled=true", "bootstrapServers"),
    ],
)
def test_wrong_values_are_refused(setting: str, named: str) -> None:
    done = template(CHART / "ci" / "least-values.yaml", "--set", setting)
    assert done.returncode != 0
    assert named in done.stderr
