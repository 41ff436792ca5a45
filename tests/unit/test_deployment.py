"""What lies in deploy/ holds together: schemas, settings, commands, names, and times to stop."""

import os
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
from logflume.settings.groups import TemporalSettings, WorkerSettings
from logflume_cli.main import root

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PLACES = ("base", "autoscaled")
DRAIN_SECONDS = 40  # 20 s for flushes, 20 s for signals

# KEDA's own kinds, of which the cluster has the schema and we have not: what we use of it.
STRINGS = {"rabbitmq": {"protocol", "queueName", "mode", "value"},
           "temporal": {"endpointFromEnv", "namespace", "taskQueue", "queueTypes",
                        "targetQueueSize"}}  # fmt: skip


def documents(place: str) -> list[dict]:
    """Every object of the files in a folder; kustomize's own file is none."""
    files = sorted((KUBERNETES / place).glob("*.yaml"))
    found = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    return [one for one in found if one["kind"] != "Kustomization"]


OBJECTS = [one for place in PLACES for one in documents(place)]
WORKLOADS = [one for one in OBJECTS if one["kind"] in {"Deployment", "Job"}]
DEPLOYMENTS = {
    one["metadata"]["name"]: one["spec"]["template"]
    for one in WORKLOADS
    if one["kind"] == "Deployment"
}


def title(one: dict) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def env_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings_of(given: dict[str, str], monkeypatch, tmp_path) -> Settings:
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(tmp_path))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def validate(one: dict) -> None:
    kubernetes_validate.validate(one, "1.37", strict=True)


@pytest.mark.parametrize("one", OBJECTS, ids=title)
def test_an_object_is_what_kubernetes_knows(one):
    if not one["apiVersion"].startswith("keda.sh/"):
        validate(one)
    elif one["kind"] == "TriggerAuthentication":
        [secret] = one["spec"]["secretTargetRef"]
        assert secret == {"parameter": "host", "name": "logflume", "key": "LOGFLUME_AMQP__URL"}
    else:
        validate_scaled_object(one["spec"])


def validate_scaled_object(spec: dict) -> None:
    """Field by field; what KEDA hands on to an autoscaler is validated as one."""
    target = spec.pop("scaleTargetRef")
    behavior = spec.pop("advanced")["horizontalPodAutoscalerConfig"]["behavior"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", **target}
    scaler = {"scaleTargetRef": reference, "maxReplicas": spec["maxReplicaCount"]}
    autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    validate(autoscaler | {"metadata": {"name": "x"}, "spec": scaler | {"behavior": behavior}})
    assert target["name"] in DEPLOYMENTS
    assert spec.keys() == {"pollingInterval", "minReplicaCount", "maxReplicaCount", "triggers"}
    for trigger in spec["triggers"]:
        given = trigger["metadata"]
        assert given.keys() == STRINGS[trigger["type"]]
        assert all(isinstance(value, str) for value in given.values())


def test_autoscaling_looks_at_our_own_queues():
    queue = TemporalSettings().task_queue
    config = env_file(KUBERNETES / "base/settings.env")
    looked_at = {}
    for one in documents("autoscaled"):
        for trigger in one["spec"].get("triggers", ()):
            given = trigger["metadata"]
            looked_at[one["metadata"]["name"]] = given.get("queueName") or given["taskQueue"]
            assert (
                given.get("namespace", config["LOGFLUME_TEMPORAL__NAMESPACE"])
                == (config["LOGFLUME_TEMPORAL__NAMESPACE"])
            )
    assert looked_at == {
        "drain": contract.QUEUE,
        "worker-lifecycle": queue,
        "worker-archive": archive_queue(queue),
    }


@pytest.mark.parametrize("one", WORKLOADS, ids=title)
def test_a_pod_may_do_little_and_runs_a_command_that_there_is(one):
    pod = one["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"] and not pod["enableServiceLinks"]
    [container] = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
    common, secret, *own = container["envFrom"]
    assert ([*common], secret["secretRef"]) == (["configMapRef"], {"name": "logflume"})
    assert all(one["secretRef"]["optional"] for one in own)
    with pytest.raises(SystemExit, match="0"):
        root.main([*container["args"], "--help"])


def test_what_is_selected_is_there():
    labels = [template["metadata"]["labels"].items() for template in DEPLOYMENTS.values()]
    selectors = [
        found.get("matchLabels", found)
        for one in OBJECTS
        for found in [one["spec"].get("selector") or one["spec"].get("podSelector")
                      if "spec" in one else None]
        if found
    ]  # fmt: skip
    assert len(selectors) > len(DEPLOYMENTS)
    assert all(any(it.items() <= each for each in labels) for it in selectors)


def test_pods_get_the_time_to_stop_that_they_take():
    grace = {
        name: template["spec"]["terminationGracePeriodSeconds"]
        for name, template in DEPLOYMENTS.items()
    }
    assert grace["drain"] > DRAIN_SECONDS
    for name in ("worker-lifecycle", "worker-archive"):
        assert grace[name] > WorkerSettings().shutdown_seconds
    assert grace["web"] > 5 + 10


def test_settings_are_settings_and_secrets_are_nowhere(monkeypatch, tmp_path):
    settings_of(env_file(KUBERNETES / "base/settings.env"), monkeypatch, tmp_path)
    assert "Secret" not in {one["kind"] for one in OBJECTS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("place", PLACES)
def test_kustomize_puts_it_together(place):
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / place], capture_output=True, text=True, check=True
    )
    made = list(yaml.safe_load_all(done.stdout))
    assert {one["metadata"].get("namespace", "logflume") for one in made} == {"logflume"}
    pods = [one for one in made if one["kind"] in {"Deployment", "Job"}]
    assert len(pods) == len(WORKLOADS)
    for one in pods:
        [container] = one["spec"]["template"]["spec"]["containers"]
        assert container["image"].startswith("registry.example/logflume:")
        assert container["envFrom"][0]["configMapRef"]["name"].startswith("logflume-")
        assert ("replicas" in one["spec"]) == (place == "base" and one["kind"] == "Deployment")
    for one in made:
        if not one["apiVersion"].startswith("keda.sh/"):
            validate(one)


UNITS = ("drain@1", "lifecycle@1", "archive@1", "web@8080", "migrate", "schedules")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_units_are_what_systemd_knows_and_may_do_little(tmp_path):
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
    given = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:/lib/systemd/system"}
    for command in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        checked = files if command == ["verify"] else files[1:]
        done = subprocess.run(
            ["systemd-analyze", *command, *checked],
            env=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_an_example_of_a_secret_is_none(monkeypatch, tmp_path):
    given = env_file(DEPLOY / "systemd/logflume.env")
    for name in ("AUTH_TOKEN", "LINK_SECRET"):
        with pytest.raises(SettingsError, match=f"LOGFLUME_WEB__{name}: .* at least"):
            settings_of(given, monkeypatch, tmp_path)
        given[f"LOGFLUME_WEB__{name}"] = 32 * "x"
    settings_of(given, monkeypatch, tmp_path)


def test_units_have_the_commands_and_times_they_need():
    for file in (DEPLOY / "systemd").glob("*.service"):
        lines = dict(
            line.split("=", 1) for line in file.read_text().splitlines() if "=" in line[1:]
        )
        with pytest.raises(SystemExit, match="0"):
            root.main([*lines["ExecStart"].split()[1:], "--help"])
        if "drain" in file.name:
            assert int(lines["TimeoutStopSec"]) > DRAIN_SECONDS
