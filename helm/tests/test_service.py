"""The chart and the service agree: its settings, its probes and its metrics, asked of the binary itself."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import tomllib
import urllib.error
import urllib.request

import pytest
import yaml

import chart
import values_table

ROLES = {"serve", "work", "migrate"}
URL = "postgres://shop:hunter2@db.example:5432/shop"
# What a Secret holds; lists are separated by commas.
SECRETS = {
    "primary-url": URL,
    "direct-url": URL,
    "migration-url": URL,
    "east-primary": URL,
    "replica-urls": f"{URL}?a,{URL}?b".replace("?a", "").replace("?b", ""),
    "redis-url": "redis://:hunter2@cache.example:6379",
    "token-keys": "k" * 32,
    "admin-token": "t" * 32,
    "caller-keys": "c" * 32,
    "payments-token": "p" * 32,
}
# Beside its pool: the background check and the flags, and where jobs run one connection for them and one for the outbox.
BESIDES, BESIDES_JOBS = 2, 2


def containers(objects):
    """Each container of the service with its role, its pod and the settings it mounts."""
    for found in objects:
        pod = chart.pod_of(found)
        for container in pod["containers"] if pod else []:
            if container["name"] in ROLES:
                volumes = {volume["name"]: volume for volume in pod["volumes"]}
                config = chart.find(objects, "ConfigMap", volumes["config"]["configMap"]["name"])
                yield container["name"], pod, container, config["data"]["settings.toml"], volumes


def environment(container, volumes, settings, folder):
    """The variables of a container, with what it mounts in a folder of ours."""
    folder.mkdir()
    (folder / "settings.toml").write_text(settings)
    for item in volumes["secrets"]["secret"]["items"]:
        path = folder / item["path"]
        path.write_text(SECRETS[item["key"]])
        path.chmod(volumes["secrets"]["secret"]["defaultMode"])
    env = {e["name"]: e.get("value", "1") for e in container["env"]}
    places = {"/etc/holdfast/config": str(folder), "/etc/holdfast/secrets": str(folder)}
    for place, own in places.items():
        env = {name: value.replace(place, own) for name, value in env.items()}
    return env


def check_config(env):
    done = subprocess.run([chart.BINARY, "check-config"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    lines = (line.split("  #")[0].split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    return {key.strip(): value.strip().strip('"') for key, value in lines}, done.stdout


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))


@pytest.mark.parametrize("fixture", chart.FIXTURES)
def test_the_service_takes_every_setting(fixture, tmp_path):
    objects = chart.objects(fixture)
    checked = {}
    for role, pod, container, settings, volumes in containers(objects):
        env = environment(container, volumes, settings, tmp_path / role)
        values, printed = check_config(env)
        checked[role] = values
        assert "hunter2" not in printed
        # Each file and each line of the settings is in force; nothing comes from anywhere unexpected.
        for name in env:
            if name.startswith("HOLDFAST__"):
                assert f"named by env {name}" in printed or f"# env {name}" in printed, name
        in_file = sum(1 for _ in chart.leaves(tomllib.loads(settings)))
        assert printed.count(f"# file {tmp_path / role}/settings.toml") == in_file, printed
        if role != "migrate":
            assert seconds(values["shutdown.grace"]) == pod["terminationGracePeriodSeconds"]
            stop = chart.at(container, ["lifecycle", "preStop", "sleep", "seconds"]) or 0
            assert seconds(values["shutdown.pre_stop"]) == stop
            assert values["admin.listen"] == f"0.0.0.0:{chart.at(container, ['ports', 'admin', 'containerPort'])}"

    print(f"{fixture}: check-config accepts {' '.join(checked)}")
    assert "serve" in checked
    assert ("work" in checked) == (checked["serve"]["jobs.run_in_serve"] == "false")
    connections(fixture, objects, checked)


def connections(fixture, objects, checked):
    """Adds up what all pods of a rollout may open, from what the service itself says, and compares it with the one number."""
    values = {}
    for path in [chart.CHART / "values.yaml", *chart.layers(fixture)]:
        values = merged(values, yaml.safe_load(pathlib.Path(path).read_text()))
    total = 0
    for role in checked.keys() - {"migrate"}:
        scalers = [s for s in objects if s["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") and s["spec"]["scaleTargetRef"]["name"].endswith(role)]
        most = [s["spec"].get("maxReplicas") or s["spec"]["maxReplicaCount"] for s in scalers] or [values[role]["replicas"]]
        surge = str(values["rollout"]["maxSurge"])
        surge = -(-most[0] * int(surge[:-1]) // 100) if surge.endswith("%") else int(surge)
        pool = int(checked[role]["postgres.primary_connections_max"])
        runs_jobs = role == "work" or checked[role]["jobs.run_in_serve"] == "true"
        total += (most[0] + 2 * surge) * (pool + BESIDES + BESIDES_JOBS * runs_jobs)
        assert pool == int(checked[role]["postgres.replica_connections_max"])
        assert pool > int(checked[role]["postgres.fallback_reads_max"]) >= int(checked[role]["postgres.fallback_expendable_max"])
        assert not runs_jobs or pool > int(checked[role]["jobs.concurrency"]) or role == "serve"

    most = values["postgres"]["maxConnections"] - values["postgres"]["reservedConnections"]
    noted = [o["metadata"]["annotations"]["holdfast/connections"] for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("-work")]
    print(f"{fixture}: {total} connections of {most} at most")
    assert total <= most
    assert all(note.startswith(f"{total} of ") for note in noted)


def merged(one, other):
    both = {key: merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value for key, value in other.items()}
    return {**one, **both}


def test_the_service_refuses_the_ladders_that_the_chart_refuses(tmp_path):
    objects = chart.objects("default")
    role, _, container, settings, volumes = next(c for c in containers(objects) if c[0] == "serve")
    broken = {
        "acquire_timeout": ("500ms", "connect_timeout"),
        "connect_timeout": ("1000ms", "statement_timeout"),
        "replica_timeout": ("1200ms", "statement_timeout"),
        "statement_timeout": ("2000ms", "read_deadline"),
        "read_deadline": ("5001ms", "write_deadline"),
        "write_deadline": ("15000ms", "drain_timeout"),
        "grace": ("32s", "pre_stop"),
    }
    for key, (value, other) in broken.items():
        changed = re.sub(rf"^{key} = .*$", f'{key} = "{value}"', settings, flags=re.M)
        assert changed != settings
        env = environment(container, volumes, changed, tmp_path / key)
        done = subprocess.run([chart.BINARY, "check-config"], env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 78 and key in done.stderr and other in done.stderr, done.stderr
    print(f"{len(broken)} ladders, refused by chart and service alike")


def test_a_value_that_names_a_setting_sets_it():
    knobs = yaml.safe_load((chart.HERE / "knobs.yaml").read_text())
    named = {value: re.search(r"\(`([a-z_]+\.[a-z_]+)`\)", said) for value, said in values_table.comments()}
    named = {value: found[1] for value, found in named.items() if found}

    def shown(value):
        return seconds(value) if isinstance(value, str) and re.fullmatch(r"[0-9]+(ms|s)", value) else value

    for value, setting in named.items():
        to = knobs[value]["to"]
        changes = chart.nested(value, to)
        for path, other in knobs[value].get("with", {}).items():
            changes = merged(changes, chart.nested(path, other))
        config = chart.find(chart.parsed(chart.run_helm("default", changes)), "ConfigMap", "shop-holdfast-serve")
        found = chart.at(tomllib.loads(config["data"]["settings.toml"]), setting.split("."))
        scale = 0.001 if value.endswith("Ms") else 1
        assert shown(found) == (to * scale if isinstance(to, (int, float)) and not isinstance(to, bool) else to), value
    print(f"{len(named)} values set the setting that they name")
    assert len(named) >= 20


class Running:
    """A process of the service until the end of a `with`, where nothing else is said without any server around it."""

    def __init__(self, role, folder, env=None):
        nobody = {"HOLDFAST_PROFILE": "test", "HOLDFAST__POSTGRES__PRIMARY_URL": "postgres://a:b@127.0.0.1:1/c", "HOLDFAST__REDIS__URL": "redis://127.0.0.1:1"}
        env = {**nobody, **(env or {})}
        self.process = subprocess.Popen([chart.BINARY, role], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
        self.timer = threading.Timer(120, self.process.kill)
        self.timer.start()

    def __enter__(self):
        for line in self.process.stdout:
            found = re.search(r'admin listener.*"address":"([0-9.:]+)"|"address":"([0-9.:]+)".*admin listener', line)
            if found:
                self.admin = found[1] or found[2]
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return self
        raise AssertionError("it ended, or never listened")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self.timer.cancel()

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("role", ["serve", "work"])
def test_the_probes_are_served_and_only_readiness_asks_for_a_dependency(role, tmp_path):
    deployment = chart.find(chart.objects("default"), "Deployment", f"shop-holdfast-{role}")
    container = chart.at(deployment, ["spec", "template", "spec", "containers", role])
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert len(set(paths.values())) == 3

    with Running(role, tmp_path) as running:
        while running.get(paths["startup"])[0] != 200:
            assert running.process.poll() is None
        statuses = {kind: running.get(path)[0] for kind, path in paths.items()}

    print(f"{role} without Postgres and Redis: {statuses}")
    assert statuses == {"startup": 200, "liveness": 200, "readiness": 503}


def test_metrics_that_the_chart_asks_for_exist(tmp_path):
    sources = "\n".join(path.read_text() for path in (chart.ROOT / "crates").glob("*/src/**/*.rs"))
    registered = {}
    for name, unit in re.findall(r'register(?:_with_unit)?\(\s*"([a-z0-9_]+)",\s*"[^"]*",\s*(Unit::\w+)?', sources):
        registered[name + ("_seconds" if unit == "Unit::Seconds" else "")] = name
    asked = {}
    adapter = yaml.safe_load((chart.CHART / "files/prometheus-adapter.yaml").read_text())
    texts = [rule["metricsQuery"] + rule["seriesQuery"] for rule in adapter["rules"]["custom"]]
    texts += re.findall(r"query: \|?\s*(.*(?:\n {14}.*)*)", chart.text("canary") + chart.text("keda"))
    for text in texts:
        for name in re.findall(r"([a-z][a-z0-9_]+)\{", text):
            asked[name] = re.sub(r"_(bucket|count|sum|total)$", "", name)

    with Running("serve", tmp_path) as running:
        scraped = set(re.findall(r"^# TYPE (\w+)", running.get("/metrics")[1], re.M))
    missing = [name for name, base in asked.items() if base not in registered and base not in scraped]
    print(f"asked for: {' '.join(sorted(asked))}")
    assert len(asked) >= 5 and not missing
    offered = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    used = {m["pods"]["metric"]["name"] for o in chart.objects("all-on") if o["kind"] == "HorizontalPodAutoscaler" for m in o["spec"]["metrics"] if "pods" in m}
    assert used == offered


def test_the_chart_is_of_the_same_version_as_the_crates():
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    crates = tomllib.loads((chart.ROOT / "Cargo.toml").read_text())["workspace"]["package"]

    assert about["appVersion"] == crates["version"]
    assert about["apiVersion"] == "v2" and about["kubeVersion"].startswith(">=1.30") and about["sources"]


def test_the_table_of_values_is_the_one_of_values_yaml():
    if os.environ.get("CHART_GOLDEN") == "write":
        values_table.write()

    text = (chart.HERE.parent / "VALUES.md").read_text()
    assert text == values_table.table(), "CHART_GOLDEN=write make chart"
    assert "|  |" not in text


def test_files_that_are_put_into_objects_fit_in():
    rules = yaml.safe_load((chart.CHART / "files/alerts.yaml").read_text())
    dashboard = (chart.CHART / "files/dashboard.json").read_text()

    rule = chart.find(chart.objects("prod"), "PrometheusRule", "shop-holdfast")
    assert rule["spec"] == rules and set(rules) == {"groups"}
    config = chart.find(chart.objects("prod"), "ConfigMap", "shop-holdfast-dashboard")
    assert json.loads(config["data"]["shop-holdfast.json"]) == json.loads(dashboard)
    assert len(dashboard.encode()) < 1_000_000
