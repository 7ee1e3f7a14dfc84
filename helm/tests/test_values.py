"""What values the chart takes, what it refuses, and that each of them matters."""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

import chart

REFUSED = yaml.safe_load((chart.HERE / "refused.yaml").read_text())
KNOBS = yaml.safe_load((chart.HERE / "knobs.yaml").read_text())


def merged(*maps):
    """Deeply, the later over the earlier."""
    result = {}
    for one in maps:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def changes(flat):
    return merged(*[chart.nested(path, value) for path, value in flat.items()])


def refusal(case, helm):
    try:
        chart.run_helm(case.get("base", "default"), changes(case["change"]), helm)
    except chart.Refused as refused:
        return str(refused)
    return "nothing: it was rendered"


def each(table, ask):
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(ask, table))


@pytest.mark.parametrize("helm", chart.HELMS)
@pytest.mark.parametrize("part", REFUSED)
def test_what_is_wrong_is_refused_with_its_name(part, helm):
    said = each(REFUSED[part], lambda case: refusal(case, helm))

    wrong = [f"{case}: {text}" for case, text in zip(REFUSED[part], said) if case["says"] not in text]
    assert not wrong, "\n".join(wrong)
    schema = [text for text in said if "meet the specifications of the schema" in text]
    assert len(schema) == (len(said) if part == "schema" else 0)
    print(f"{helm}: {len(said)} values refused by {part}, each by its name")


def test_every_value_has_another_in_the_table():
    names = [name for name, _ in chart.leaves(chart.VALUES)]

    assert sorted(names) == sorted(KNOBS)


def test_every_value_changes_the_render():
    @functools.cache
    def below(fixture, others):
        return chart.run_helm(fixture, changes(yaml.safe_load(others)))

    def moves(knob):
        name, case = knob
        others = case.get("with", {})
        fixture = case.get("base", "default")
        # What it needs is set in both, so that only the value itself differs.
        before = below(fixture, yaml.safe_dump(others))
        try:
            after = chart.run_helm(fixture, changes({**others, name: case["to"]}))
        except chart.Refused:
            return bool(case.get("refused"))
        return not case.get("refused") and before != after

    table = list(KNOBS.items())
    idle = [name for (name, _), moved in zip(table, each(table, moves)) if not moved]
    assert not idle
    print(f"{len(table)} values, each changes what is rendered")


def test_every_value_is_documented():
    lines = (chart.CHART / "values.yaml").read_text().splitlines()
    keys = [(n, line) for n, line in enumerate(lines) if line.strip() and line.lstrip()[0] not in "#-"]
    is_section = {n for n, line in keys if line.endswith(":")}
    bare = [line for n, line in keys if n not in is_section and not lines[n - 1].lstrip().startswith("#")]
    within = [line for n, line in keys if n in is_section and not lines[n + 1].lstrip().startswith(("#", "-"))]

    assert not bare and not [line for line in within if not line.lstrip().startswith(("resources", "hpa", "pdb"))]


def test_every_object_of_the_schema_is_closed():
    schema = yaml.safe_load((chart.CHART / "values.schema.json").read_text())
    defaults = dict(chart.leaves(chart.VALUES))

    def open_ones(part, path):
        if part.get("type") == "object" and "properties" in part and part.get("additionalProperties") is not False:
            yield path
        for key, below in part.get("properties", {}).items():
            yield from open_ones(below, f"{path}.{key}".lstrip("."))

    def knows(name):
        part = schema
        for key in name.split("."):
            while "$ref" in part:
                part = schema["$defs"][part["$ref"].split("/")[-1]]
            part = part["properties"].get(key)
            if part is None:
                return False
        return True

    assert not list(open_ones(schema, ""))
    assert not [name for name in defaults if not knows(name)]
    print(f"{len(defaults)} values, each known to the schema")
