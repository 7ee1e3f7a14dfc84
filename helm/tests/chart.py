"""Renders the chart with both Helms, once for each set of values, and finds what is asked for in it."""

import functools
import os
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
CHART = HERE.parent / "holdfast"
TOOLS = pathlib.Path(os.environ["CHART_TOOLS"])
BINARY = pathlib.Path(os.environ["CHART_HOLDFAST"])
HELMS = ["helm3", "helm4"]
FIXTURES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# The long one is as long as Helm allows.
RELEASES = {"long-names": "r" * 53}


class Refused(Exception):
    """Helm rendered nothing and said why."""


def release(fixture):
    return RELEASES.get(fixture, "shop")


def layers(fixture):
    """The values files of a fixture, the one of the chart below its own."""
    shipped = CHART / f"values-{fixture}.yaml"
    own = HERE / "values" / f"{fixture}.yaml"
    return [str(path) for path in (shipped, own) if path.exists()]


def nested(path, value):
    """`a.b: value` as maps in each other."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def run_helm(fixture, changes=None, helm="helm4", args=()):
    command = [TOOLS / helm, "template", release(fixture), CHART, "--namespace", "store", *args]
    for path in layers(fixture):
        command += ["--values", path]
    command += ["--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(changes or {}), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


@functools.cache
def text(fixture, helm="helm4", args=()):
    return run_helm(fixture, helm=helm, args=args)


def parsed(rendered):
    return [found for found in yaml.load_all(rendered, yaml.CSafeLoader) if found]


@functools.cache
def objects(fixture, helm="helm4"):
    return parsed(text(fixture, helm))


def find(found, kind, name):
    matching = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return matching[0] if matching else None


def pod_of(found):
    """The pod that an object makes, or nothing."""
    return found.get("spec", {}).get("template", {}).get("spec") if found["kind"] in ("Deployment", "Job", "Rollout") else None


def at(found, path):
    """The value at `a.b.0.name`: an item of a list by its number, its name or its type. None where there is none."""
    for key in path:
        if isinstance(found, list):
            by_name = [i for i in found if isinstance(i, dict) and key in (i.get("name"), i.get("type"), i.get("topologyKey"))]
            if key.isdigit():
                found = found[int(key)] if int(key) < len(found) else None
            else:
                found = by_name[0] if by_name else None
        elif isinstance(found, dict):
            found = found.get(key)
        else:
            return None
    return found


def leaves(values, path=""):
    """Each dotted name of a value, whose own content is not the chart's."""
    for key, value in values.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and value and key not in ("requests", "limits"):
            yield from leaves(value, name)
        else:
            yield name, value
