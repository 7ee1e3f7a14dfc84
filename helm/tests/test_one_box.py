"""A release on one machine: the commands of the rendered objects, with their settings and secrets, on a real Postgres and Redis."""

import glob
import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

import chart
from test_service import SECRETS, containers, environment

PATIENCE = 60
TELL = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def servers():
    """What devstack's servers are called, for as long as they run."""
    command = [chart.BINARY.parent / "devstack", "exec", "--", sys.executable, "-c", TELL]
    stack = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        lines = iter(stack.stdout.readline, "")
        yield json.loads(next(line for line in lines if line.startswith("{")))
    finally:
        stack.stdin.close()
        stack.wait(timeout=PATIENCE)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def render(ports):
    names = ("http", "grpc", "admin")
    return chart.parsed(chart.run_helm("prod", {"ports": dict(zip(names, ports))}))


def command(objects, role, secrets, folder):
    """What a pod of a role runs, and with which variables."""
    SECRETS.update(secrets)
    _, pod, container, settings, volumes = next(found for found in containers(objects) if found[0] == role)
    env = environment(container, volumes, settings, folder)
    env["TOKIO_WORKER_THREADS"] = "1"
    return [chart.BINARY, *container["args"]], env, pod


def ask(*args):
    return subprocess.run([chart.BINARY, "healthcheck", *args], env={}, capture_output=True, text=True, timeout=PATIENCE)


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def besides_the_pools(url, processes):
    """The connections that are no pool's, by what they are for."""
    psql = shutil.which("psql") or sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]
    query = "select json_object_agg(application_name, n) from (select application_name, count(*) n from pg_stat_activity where application_name like 'holdfast-%' group by 1) as found"
    done = subprocess.run([psql, url, "-Atc", query], capture_output=True, text=True, check=True, timeout=PATIENCE)
    found = json.loads(done.stdout.strip() or "{}") or {}
    return found if len(found) == processes else None


def test_a_release_on_one_machine(servers, tmp_path):
    secrets = {
        "primary-url": servers["HOLDFAST__POSTGRES__PRIMARY_URL"],
        "migration-url": servers["HOLDFAST__POSTGRES__PRIMARY_URL"],
        "replica-urls": servers["HOLDFAST__POSTGRES__REPLICA_URLS"],
        "redis-url": servers["HOLDFAST__REDIS__URL"],
    }
    ports = free_ports(6)
    objects, of_work = render(ports[:3]), render(ports[3:])
    http, grpc, admin = (f"127.0.0.1:{port}" for port in ports[:3])

    args, env, _ = command(objects, "migrate", secrets, tmp_path / "migrate")
    migrated = subprocess.run(args, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert migrated.returncode == 0, migrated.stderr

    running = {}
    try:
        for role, rendered in [("serve", objects), ("work", of_work)]:
            args, env, pod = command(rendered, role, secrets, tmp_path / role)
            with open(tmp_path / f"{role}.log", "w") as log:
                running[role] = (subprocess.Popen(args, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path), pod)
        until(lambda: ask("--at", admin, "--ready").returncode == 0, "serve is not ready")
        until(lambda: ask("--at", f"127.0.0.1:{ports[5]}", "--ready").returncode == 0, "work is not ready")

        tests = [o for o in objects if o["kind"] == "Job" and "-test-" in o["metadata"]["name"]]
        for test in tests:
            args = chart.pod_of(test)["containers"][0]["args"]
            here = {"shop-holdfast:80": http, "shop-holdfast:8082": grpc}
            asked = ask(*[here.get(arg, arg) for arg in args[1:]])
            assert asked.returncode == 0, asked.stderr
        assert len(tests) == 3

        besides = until(lambda: besides_the_pools(servers["DATABASE_URL"], 4), "some connection was not opened")
        assert besides == {"holdfast-check": 2, "holdfast-flags": 2, "holdfast-jobs": 1, "holdfast-outbox": 1}
        print(f"beside the pools of one serve and one work: {besides}")
    finally:
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        ends = {}
        for role, (process, pod) in running.items():
            try:
                ends[role] = (process.wait(timeout=PATIENCE), time.monotonic() - begun, pod)
            except subprocess.TimeoutExpired:
                process.kill()
    for role, (code, took, pod) in ends.items():
        stop = chart.at(pod["containers"][0], ["lifecycle", "preStop", "sleep", "seconds"])
        assert code == 0 and stop + took < pod["terminationGracePeriodSeconds"], (tmp_path / f"{role}.log").read_text()[-2000:]
    print({role: f"ended within {took:.1f} s with {code}" for role, (code, took, _) in ends.items()})
