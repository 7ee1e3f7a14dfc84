"""Writes helm/VALUES.md from values.yaml: `python helm/tests/values_table.py`. A test holds the two together."""

import json
import os
import re

os.environ.setdefault("CHART_TOOLS", "")
os.environ.setdefault("CHART_HOLDFAST", "")
import chart

HEAD = """# The chart's values

Written by `CHART_GOLDEN=write make chart` from `holdfast/values.yaml`; change the comments there.

| value | default | is |
|---|---|---|
"""


def comments():
    """The comment above each key, by its dotted name."""
    path, said = [], []
    for line in (chart.CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        key = re.match(r"( *)([A-Za-z0-9]+):", line)
        if text.startswith("#"):
            said.append(text.lstrip("# "))
        elif key:
            path = path[: len(key[1]) // 2] + [key[2]]
            yield ".".join(path), " ".join(said)
            said = []
        else:
            said = []


def table():
    said = dict(comments())
    rows = []
    for name, default in chart.leaves(chart.VALUES):
        text = said[name].replace("|", "\\|")
        rows.append(f"| `{name}` | `{json.dumps(default)}` | {text} |\n")
    return HEAD + "".join(rows)


def write():
    (chart.HERE.parent / "VALUES.md").write_text(table())


if __name__ == "__main__":
    write()
