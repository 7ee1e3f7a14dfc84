"""A release on one machine: the commands of the rendered objects, with their settings and secrets, on a real Postgres and Redis."""

import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import pytest

import chart
from test_service import SECRETS, Running, containers, environment

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


def pooler_binary():
    """As `make setup` provides it, or the machine."""
    own = chart.BINARY.parent.parent / "pgbouncer" / "pgbouncer"
    return own if own.exists() else shutil.which("pgbouncer")


@pytest.fixture
def open_folder():
    """Pytest's own is closed to other users, and the pooler refuses to be root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


def test_the_service_accepts_the_pooler_as_it_is_configured(servers, open_folder, tmp_path):
    at = urllib.parse.urlsplit(servers["HOLDFAST__POSTGRES__PRIMARY_URL"])
    where = f"host={at.hostname} port={at.port} dbname={at.path[1:]}"
    changes = {"pgbouncer": {"databases": {"shop": where}}}
    objects = chart.parsed(chart.run_helm("all-on", changes))
    config = chart.find(objects, "ConfigMap", "shop-holdfast-pgbouncer")["data"]["pgbouncer.ini"]
    (port,) = free_ports(1)
    userlist = open_folder / "userlist.txt"
    userlist.write_text(f'"{at.username}" "{at.password or ""}"\n')
    ini = open_folder / "pgbouncer.ini"
    ini.write_text(config.replace("/etc/pgbouncer/secrets", str(open_folder)).replace("listen_port = 5432", f"listen_port = {port}"))
    ini.chmod(0o644)
    userlist.chmod(0o644)
    pooled = at._replace(netloc=f"{at.username}:{at.password or ''}@127.0.0.1:{port}", path="/shop").geturl()
    env = {
        "HOLDFAST_PROFILE": "test",
        "HOLDFAST__POSTGRES__PRIMARY_URL": pooled,
        "HOLDFAST__POSTGRES__DIRECT_URL": servers["HOLDFAST__POSTGRES__PRIMARY_URL"],
        "HOLDFAST__POSTGRES__POOLED": "true",
    }
    user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"] if os.geteuid() == 0 else []
    binary = shutil.copy(pooler_binary(), open_folder / "pgbouncer")
    with open(tmp_path / "log", "w") as log:
        pooler = subprocess.Popen([*user, binary, ini], stdout=log, stderr=subprocess.STDOUT, cwd="/")
    try:
        subprocess.run([chart.BINARY, "migrate"], env=env, check=True, timeout=PATIENCE)
        run = lambda: subprocess.run([chart.BINARY, "jobs", "list"], env=env, capture_output=True, text=True, timeout=PATIENCE)
        until(lambda: run().returncode == 0, f"{run().stderr} {(tmp_path / 'log').read_text()}")
        with Running("work", tmp_path, env) as work:
            ready = until(lambda: work.get("/ready")[0] == 200 and work.get("/ready")[1], f"the pooler does not fit: {work.get('/ready')}")
    finally:
        pooler.terminate()
        pooler.wait(timeout=PATIENCE)
    check = json.loads(ready)["checks"]["postgres-primary:connectivity"][0]
    print(f"through the pooler: {check['status']}, {check['output']}")
    assert check["status"] == "pass"
