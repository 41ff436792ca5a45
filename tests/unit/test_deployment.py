"""The files in deploy/: schemas, settings, commands, names and stop timeouts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from activities.types import archive_queue
from logflume import contract
from logflume.errors import SettingsError
from logflume.settings import Settings, load_settings
from logflume.settings.servers import TemporalSettings
from logflume.settings.stages import WorkerSettings
from logflume_cli.main import root

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("base", "autoscaled")
FOLDERS = (*OVERLAYS, "monitoring", "public")
DRAIN_SECONDS = 40  # 20 s for flushes, 20 s for signals

# Schemas of other API groups are not available here: these are the fields that we use.
STRINGS = {"rabbitmq": {"protocol", "queueName", "mode", "value"},
           "temporal": {"endpointFromEnv", "namespace", "taskQueue", "queueTypes",
                        "targetQueueSize"}}  # fmt: skip


AUTHENTICATION = {"rabbitmq": {"host", "tls", "ca", "cert", "key"},
                  "temporal": {"apiKey", "ca", "cert", "key"}}  # fmt: skip


def documents(overlay: str) -> list[dict]:
    """All objects of an overlay's files, without the Kustomization."""
    files = sorted((KUBERNETES / overlay).glob("*.yaml"))
    objects = [item for file in files for item in yaml.safe_load_all(file.read_text())]
    return [item for item in objects if item["kind"] != "Kustomization"]


OBJECTS = [item for folder in FOLDERS for item in documents(folder)]
WORKLOADS = [item for item in OBJECTS if item["kind"] in {"Deployment", "Job"}]
DEPLOYMENTS = {
    item["metadata"]["name"]: item["spec"]["template"]
    for item in WORKLOADS
    if item["kind"] == "Deployment"
}


def title(item: dict) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def env_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings_of(environment: dict[str, str], monkeypatch, tmp_path) -> Settings:
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def validate(item: dict) -> None:
    kubernetes_validate.validate(item, "1.37", strict=True)


@pytest.mark.parametrize("item", OBJECTS, ids=title)
def test_objects_conform_to_the_kubernetes_schema(item):
    if item["kind"] == "ScaledObject":
        validate_scaled_object(item["spec"])
    elif item["kind"] == "TriggerAuthentication":
        name, targets = item["metadata"]["name"], item["spec"]["secretTargetRef"]
        assert {target["parameter"] for target in targets} == AUTHENTICATION[name]
        assert {target["name"] for target in targets} == {"logflume-keda"}
    elif item["apiVersion"] not in {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}:
        validate(item)


def validate_scaled_object(spec: dict) -> None:
    """Check every field; those that KEDA passes to an autoscaler are validated as such."""
    target = spec.pop("scaleTargetRef")
    behavior = spec.pop("advanced")["horizontalPodAutoscalerConfig"]["behavior"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", **target}
    scaler = {"scaleTargetRef": reference, "maxReplicas": spec["maxReplicaCount"]}
    autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    validate(autoscaler | {"metadata": {"name": "x"}, "spec": scaler | {"behavior": behavior}})
    assert target["name"] in DEPLOYMENTS
    assert spec.keys() == {"pollingInterval", "minReplicaCount", "maxReplicaCount", "triggers"}
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        assert trigger["authenticationRef"] == {"name": trigger["type"]}
        assert metadata.keys() == STRINGS[trigger["type"]]
        assert all(isinstance(value, str) for value in metadata.values())


def test_autoscaling_triggers_name_our_queues():
    queue = TemporalSettings().task_queue
    config = env_file(KUBERNETES / "base/settings.env")
    queues = {}
    for item in documents("autoscaled"):
        for trigger in item["spec"].get("triggers", ()):
            metadata, namespace = trigger["metadata"], config["LOGFLUME_TEMPORAL__NAMESPACE"]
            queues[item["metadata"]["name"]] = metadata.get("queueName") or metadata["taskQueue"]
            assert metadata.get("namespace", namespace) == namespace
    assert queues == {
        "drain": contract.QUEUE,
        "worker-lifecycle": queue,
        "worker-archive": archive_queue(queue),
    }


@pytest.mark.parametrize("item", WORKLOADS, ids=title)
def test_pods_have_minimal_privileges_and_run_existing_commands(item):
    pod = item["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"] and not pod["enableServiceLinks"]
    [container] = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
    common, secret, *own = container["envFrom"]
    assert ([*common], secret["secretRef"]) == (["configMapRef"], {"name": "logflume"})
    assert all(item["secretRef"]["optional"] for item in own)
    files = pod["volumes"][-1]["projected"]
    assert container["volumeMounts"][-1]["name"] == pod["volumes"][-1]["name"] == "files"
    assert all(source["secret"]["optional"] for source in files["sources"])
    names = [source["secret"]["name"] for source in files["sources"]]
    assert names == [f"{item['secretRef']['name']}-files" for item in (secret, *own)]
    if container.get("command") == ["sleep", "infinity"]:
        return
    with pytest.raises(SystemExit, match="0"):
        root.main([*container["args"], "--help"])


def test_pods_that_are_not_ready_do_not_block_an_eviction():
    budgets = [item["spec"] for item in OBJECTS if item["kind"] == "PodDisruptionBudget"]
    assert {item["selector"]["matchLabels"]["app.kubernetes.io/name"] for item in budgets} == {
        *DEPLOYMENTS
    } - {"operator"}
    assert all(item["unhealthyPodEvictionPolicy"] == "AlwaysAllow" for item in budgets)


def test_pods_can_reach_only_the_servers():
    for item in WORKLOADS:
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "logflume"
    [policy] = [it["spec"] for it in OBJECTS if title(it) == "NetworkPolicy logflume"]
    [rabbitmq] = [it["spec"] for it in OBJECTS if title(it) == "NetworkPolicy rabbitmq"]
    [expression] = rabbitmq["podSelector"]["matchExpressions"]
    assert {*expression["values"]} < DEPLOYMENTS.keys()
    assert "Egress" in policy["policyTypes"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} >= {53, 5432, 7233}


def test_the_prometheus_rule_contains_the_alerts():
    printed = subprocess.run(
        [KUBERNETES / "monitoring/rules"], capture_output=True, text=True, check=True
    )
    alerts = yaml.safe_load((DEPLOY.parent / "monitoring/alerts.yaml").read_text())
    rule = yaml.safe_load(printed.stdout)
    assert (rule["kind"], rule["spec"]) == ("PrometheusRule", alerts)


def test_scraped_pods_get_the_jobs_of_the_dashboards():
    [monitor] = [item["spec"] for item in documents("monitoring")]
    endpoints = {it["port"]: it["relabelings"][0] for it in monitor["podMetricsEndpoints"]}
    jobs = {
        re.sub(endpoints[port]["regex"], endpoints[port]["replacement"].replace("$", "\\"), name)
        for name, template in DEPLOYMENTS.items()
        for port in (it["name"] for it in template["spec"]["containers"][0].get("ports", ()))
        if port in endpoints
    }
    config = yaml.safe_load((DEPLOY.parent / "monitoring/prometheus.yaml").read_text())
    assert jobs == {it["job_name"] for it in config["scrape_configs"]} - {"rabbitmq"}


def test_selectors_match_deployments():
    labels = [template["metadata"]["labels"].items() for template in DEPLOYMENTS.values()]
    selectors = [
        selector.get("matchLabels", selector)
        for item in OBJECTS
        for selector in [item["spec"].get("selector") or item["spec"].get("podSelector")
                         if "spec" in item else None]
        if selector and "matchExpressions" not in selector
    ]  # fmt: skip
    assert len(selectors) > len(DEPLOYMENTS)
    assert all(any(it.items() <= each for each in labels) for it in selectors)


def test_pods_have_enough_time_to_stop():
    grace = {
        name: template["spec"]["terminationGracePeriodSeconds"]
        for name, template in DEPLOYMENTS.items()
    }
    assert grace["drain"] > DRAIN_SECONDS
    for name in ("worker-lifecycle", "worker-archive"):
        assert grace[name] > WorkerSettings().shutdown_seconds
    assert grace["web"] > 5 + 10


def test_settings_are_valid_and_no_secret_is_committed(monkeypatch, tmp_path):
    settings_of(env_file(KUBERNETES / "base/settings.env"), monkeypatch, tmp_path)
    assert "Secret" not in {item["kind"] for item in OBJECTS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_every_overlay(overlay):
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / overlay], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(done.stdout))
    assert {item["metadata"].get("namespace", "logflume") for item in objects} == {"logflume"}
    pods = [item for item in objects if item["kind"] in {"Deployment", "Job"}]
    assert len(pods) == len(WORKLOADS)
    for item in pods:
        [container] = item["spec"]["template"]["spec"]["containers"]
        assert container["image"].startswith("registry.example/logflume:")
        assert container["envFrom"][0]["configMapRef"]["name"].startswith("logflume-")
        assert ("replicas" in item["spec"]) == (overlay == "base" and item["kind"] == "Deployment")
    for item in objects:
        if not item["apiVersion"].startswith("keda.sh/"):
            validate(item)


UNITS = ("drain@1", "lifecycle@1", "archive@1", "web@8080", "migrate", "schedules")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_units_are_valid_and_have_minimal_privileges(tmp_path):
    units = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", units)
    for file in units.glob("*.service"):
        bin_ = str(Path(sys.executable).parent)
        file.write_text(file.read_text().replace("/opt/logflume/bin", bin_))
    for name in UNITS:
        if "@" in name:
            template, _, instance = name.partition("@")
            source = units / f"logflume-{template}@.service"
            shutil.copy(source, units / f"logflume-{template}@{instance}.service")
    files = [units / "logflume.target", *(units / f"logflume-{name}.service" for name in UNITS)]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:/lib/systemd/system"}
    for command in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        checked = files if command == ["verify"] else files[1:]
        done = subprocess.run(
            ["systemd-analyze", *command, *checked],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_placeholder_secrets_are_rejected(monkeypatch, tmp_path):
    environment = env_file(DEPLOY / "systemd/logflume.env")
    for name in ("AUTH_TOKEN", "LINK_SECRET"):
        with pytest.raises(SettingsError, match=f"LOGFLUME_WEB__{name}: .* at least"):
            settings_of(environment, monkeypatch, tmp_path)
        environment[f"LOGFLUME_WEB__{name}"] = 32 * "x"
    settings_of(environment, monkeypatch, tmp_path)


def test_systemd_units_allow_many_open_files():
    common = (DEPLOY / "systemd/logflume-.service.d/common.conf").read_text()
    assert "\nLimitNOFILE=65536\n" in common


def test_systemd_units_run_existing_commands_and_have_enough_time_to_stop():
    for file in (DEPLOY / "systemd").glob("*.service"):
        lines = dict(
            line.split("=", 1) for line in file.read_text().splitlines() if "=" in line[1:]
        )
        with pytest.raises(SystemExit, match="0"):
            root.main([*lines["ExecStart"].split()[1:], "--help"])
        if "drain" in file.name:
            assert int(lines["TimeoutStopSec"]) > DRAIN_SECONDS
