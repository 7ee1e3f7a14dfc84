"""Draws deploy/dashboard.png: panels of the dashboard, with the answers of a Prometheus to their own queries."""

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from io import BytesIO

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from slo import ROOT

PAGE, PANEL, GRID, TEXT, DIM = "#111217", "#181b1f", "#2c3036", "#d8d9da", "#8e9297"
PALETTE = ["#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#B877D9", "#F2495C", "#8AB8FF", "#37872D", "#FFA6B0", "#8E8E9A"]
# The panels of the picture, by rows of the dashboard; all of a row where none is named.
SHOWN = {
    "At a glance": None,
    "Golden signals": ["Traffic", "Failures", "Latency", "Where requests lie", "Slowest routes"],
    "Promises": ["How fast budgets burn"],
    "Saturation": ["Saturation", "Requests at once", "CPU"],
    "Shed and degraded": ["Refused by criticality", "Refused, and why", "What is done without"],
    "Postgres: pools and replicas": ["Pools in use", "Wait for a connection, p99", "Statements, p95"],
    "Cache and Redis": ["Hits", "Redis, p99", "Redis commands"],
    "Other services": None,
    "Jobs, events and the live feed": ["Jobs that ended", "Outbox delay, p99", "Analytics"],
}
MINUTES = 5
STEP = 2
CAPTION = "deploy/alerts/picture.sh: the queries of the Grafana dashboard, answered by Prometheus and drawn without Grafana. One service of a debug build, its limit lowered to 12 at once: a rush at minute 1, a recommender that hangs at minute 3."


def main(prometheus: str, path: str) -> None:
    dashboard = json.loads((ROOT / "helm/holdfast/files/dashboard.json").read_text())
    now = time.time()
    rows = chosen(dashboard["panels"])
    heights = [0.55 if title == "At a glance" else 1 for title, line in rows]
    figure = plt.figure(figsize=(16, 1.0 + 2.15 * sum(heights)), facecolor=PAGE, dpi=100)
    grid = figure.add_gridspec(len(rows), 1, height_ratios=heights, left=0.035, right=0.985, top=0.955, bottom=0.025, hspace=0.42)
    figure.text(0.035, 0.985, "Holdfast", color=TEXT, size=17, weight="bold", va="top")
    figure.text(0.118, 0.9822, CAPTION, color=DIM, size=8, va="top")
    for (title, line), place in zip(rows, grid):
        cells = place.subgridspec(1, len(line), wspace=0.13 if len(line) < 8 else 0.08)
        for panel, cell in zip(line, cells):
            draw(figure.add_subplot(cell), panel, Source(prometheus, now))
    save(figure, path)


def chosen(panels: list[dict]) -> list[tuple[str, list[dict]]]:
    rows, title = [], ""
    for panel in panels:
        if panel["type"] == "row":
            title = panel["title"]
        elif title in SHOWN and (SHOWN[title] is None or panel["title"] in SHOWN[title]):
            is_new = not rows or len(rows[-1][1]) == (8 if rows[-1][0] == "At a glance" else 3)
            rows.append((title, [])) if is_new else None
            rows[-1][1].append(panel)
    return rows


class Source:
    def __init__(self, url: str, now: float) -> None:
        self.url, self.now = url, now

    def series(self, panel: dict) -> list[tuple[str, list[float], list[float]]]:
        """Legend, minutes and values of everything that the panel shows."""
        found = []
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "20s").replace("$namespace", ".*")
            asked = {"query": expr, "start": self.now - 60 * MINUTES, "end": self.now, "step": STEP}
            with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(asked)}") as answer:
                result = json.load(answer)["data"]["result"]
            for one in result:
                name = re.sub(r"\{\{(\w+)\}\}", lambda label: one["metric"].get(label[1], ""), target["legendFormat"])
                minutes = [(float(at) - self.now) / 60 + MINUTES for at, _ in one["values"]]
                found.append((name, minutes, [float(value) for _, value in one["values"]]))
        return found


def draw(axes, panel: dict, source: Source) -> None:
    axes.set_facecolor(PANEL)
    for side in axes.spines.values():
        side.set_color(GRID)
    axes.tick_params(colors=DIM, labelsize=7, length=0)
    {"stat": tile, "timeseries": lines, "bargauge": bars, "state-timeline": bands, "heatmap": heat}[panel["type"]](axes, panel, source)
    if panel["type"] != "stat":
        axes.set_title(panel["title"], color=TEXT, size=9.5, loc="left", pad=5, weight="medium")


def tile(axes, panel: dict, source: Source) -> None:
    series = source.series(panel)
    values = [value for value in (series[0][2] if series else []) if math.isfinite(value)]
    last = values[-1] if values else math.nan
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults["thresholds"]["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or last >= step["value"]][-1]
    axes.set_xticks([]), axes.set_yticks([])
    if len(steps) > 1:
        axes.set_facecolor(colour)
    ink = PAGE if len(steps) > 1 else "#73BF69"
    axes.text(0.5, 0.56, shown(last, defaults["unit"], defaults.get("decimals")), color=ink, size=19, weight="bold", ha="center", va="center", transform=axes.transAxes)
    axes.text(0.04, 0.9, panel["title"], color=ink, size=8.5, va="top", transform=axes.transAxes)
    if values:
        axes.fill_between(range(len(values)), values, color=ink, alpha=0.22, lw=0)
        axes.set_xlim(0, len(values) - 1)
        axes.set_ylim(0, max(max(values), 1e-9) * 3)


def lines(axes, panel: dict, source: Source) -> None:
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    fixed = {each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"] for each in overrides}
    series = sorted(one for one in source.series(panel) if any(math.isfinite(value) and value > 0 for value in one[2]))
    # A legend that fills the panel would hide it.
    series = sorted(sorted(series, key=lambda one: -max(filter(math.isfinite, one[2])))[:7])
    is_stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    base = {}
    for number, (name, minutes, values) in enumerate(series):
        colour = fixed.get(name, PALETTE[number % len(PALETTE)])
        values = [value if math.isfinite(value) else (0 if is_stacked else math.nan) for value in values]
        if is_stacked:
            low = [base.get(round(at, 3), 0) for at in minutes]
            values = [under + value for under, value in zip(low, values)]
            base |= {round(at, 3): value for at, value in zip(minutes, values)}
            axes.fill_between(minutes, low, values, color=colour, alpha=0.45, lw=0)
        else:
            axes.fill_between(minutes, 0, values, color=colour, alpha=0.08, lw=0)
        axes.plot(minutes, values, color=colour, lw=1.3, label=name)
    finish(axes, defaults, series)


def finish(axes, defaults: dict, series: list) -> None:
    axes.set_xlim(0, MINUTES)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    most = max((max(filter(math.isfinite, values), default=0) for _, _, values in series), default=0)
    top = max(axes.get_ylim()[1], defaults["custom"].get("axisSoftMax", 0))
    for step in defaults.get("thresholds", {}).get("steps", [])[1:] if "thresholds" in defaults else []:
        if step["value"] <= max(2.5 * most, defaults["custom"].get("axisSoftMax", 0)):
            axes.axhline(step["value"], color=step["color"], lw=0.9, ls=(0, (4, 3)), alpha=0.8)
            top = max(top, 1.08 * step["value"])
    axes.set_ylim(0, top if most else 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} min"))
    if series:
        axes.legend(loc="upper left", fontsize=6.8, labelcolor=TEXT, ncols=2 if len(series) > 3 else 1, handlelength=1, borderaxespad=0.3, columnspacing=1, facecolor=PANEL, framealpha=0.65, edgecolor="none")
    else:
        axes.text(0.5, 0.5, "none", color=DIM, size=9, ha="center", va="center", transform=axes.transAxes)


def bars(axes, panel: dict, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    # While it was busiest, not in the last second.
    found = {name: max(filter(math.isfinite, values), default=0) for name, _, values in source.series(panel)}
    top = sorted(found.items(), key=lambda one: one[1])[-8:]
    steps = defaults["thresholds"]["steps"]
    most = max([value for _, value in top] + [0.001]) * 1.18
    for at, (name, value) in enumerate(top):
        colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
        axes.barh(at, most, color=GRID, height=0.62, alpha=0.5)
        axes.barh(at, value, color=colour, height=0.62)
        axes.text(0.008 * most, at, name, color="white", size=7.5, va="center", weight="medium", path_effects=OUTLINE)
        axes.text(most * 0.99, at, shown(value, defaults["unit"]), color=TEXT, size=7.5, va="center", ha="right")
    axes.set_xlim(0, most), axes.set_yticks([]), axes.set_xticks([])


def bands(axes, panel: dict, source: Source) -> None:
    named = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    series = sorted(source.series(panel), reverse=True)
    for at, (_, minutes, values) in enumerate(series):
        for minute, value in zip(minutes, values):
            axes.broken_barh([(minute, STEP / 60 * 1.05)], (at - 0.36, 0.72), color=named[f"{value:.0f}"]["color"], lw=0)
        name = series[at][0]
        axes.text(0.04, at, name, color="white", size=7, va="center", path_effects=OUTLINE)
    axes.set_yticks([])
    axes.set_xlim(0, MINUTES)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} min"))


def heat(axes, panel: dict, source: Source) -> None:
    found = sorted((float(name), minutes, values) for name, minutes, values in source.series(panel) if name != "+Inf")
    below = [0.0] * len(found[0][2])
    cells = []
    for _, _, values in found:
        cells.append([max(value - under, 0) for value, under in zip(values, below)])
        below = values
    shades = [[math.log1p(value) if value > 0.5 else math.nan for value in line] for line in cells]
    axes.imshow(shades, aspect="auto", origin="lower", cmap="turbo", extent=(found[0][1][0], found[0][1][-1], 0, len(found)), interpolation="nearest")
    axes.set_xlim(0, MINUTES)
    axes.set_yticks([at + 1 for at in range(1, len(found), 2)], [shown(found[at][0], "s") for at in range(1, len(found), 2)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} min"))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    if not math.isfinite(value):
        return "–"
    if unit == "percentunit":
        return f"{100 * value:.{decimals if decimals is not None else 0}f} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    number = f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"
    return number + {"reqps": "/s", "ops": "/s"}.get(unit, "")


def save(figure, path: str) -> None:
    """With few colours, which is a third of the bytes and looks the same."""
    drawn = BytesIO()
    figure.savefig(drawn, facecolor=PAGE)
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    from matplotlib.patheffects import withStroke

    OUTLINE = [withStroke(linewidth=1.5, foreground=PAGE)]
    main(*sys.argv[1:])
