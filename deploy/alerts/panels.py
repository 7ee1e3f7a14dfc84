"""The kinds of panels that the dashboard is made of, with the looks that they share."""

import itertools

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "#73BF69", "#FADE2A", "#FF9830", "#F2495C", "#5794F2", "#B877D9", "#8E8E9A"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ids = itertools.count(1)


def panel(kind: str, title: str, queries: dict, text: str, **more) -> dict:
    """`queries` by the legend that their series get."""
    targets = [
        {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend, "datasource": SOURCE, "range": True}
        for at, (legend, expr) in enumerate(queries.items())
    ]
    return {"id": next(ids), "type": kind, "title": title, "description": text, "datasource": SOURCE, "targets": targets} | more


def lines(title, queries, text, unit="short", colours=None, steps=None, stack=False, most=None) -> dict:
    custom = {
        "lineWidth": 1 if stack else 2,
        "fillOpacity": 45 if stack else 10,
        "gradientMode": "opacity",
        "lineInterpolation": "smooth",
        "showPoints": "never",
        "spanNulls": 120000,
        "stacking": {"mode": "normal" if stack else "none"},
        "axisSoftMin": 0,
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    defaults = {"unit": unit, "min": 0, "custom": custom, "color": {"mode": "palette-classic"}}
    if most is not None:
        custom["axisSoftMax"] = most
    if steps:
        defaults["thresholds"] = thresholds(steps)
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, queries, text, fieldConfig=fields(defaults, colours), options=options)


def tile(title, expr, text, unit="short", steps=None, decimals=None) -> dict:
    """One number, large, with its last hour below."""
    defaults = {"unit": unit, "thresholds": thresholds(steps or {}), "color": {"mode": "thresholds"}, "noValue": "–"}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "colorMode": "background_solid" if steps else "value",
        "graphMode": "area",
        "justifyMode": "center",
        "reduceOptions": {"calcs": ["lastNotNull"]},
        "textMode": "value",
    }
    return panel("stat", title, {"": expr}, text, fieldConfig=fields(defaults), options=options)


def bars(title, queries, text, unit="short", steps=None, most=None) -> dict:
    """What is now, one bar each."""
    defaults = {"unit": unit, "min": 0, "thresholds": thresholds(steps or {}), "color": {"mode": "thresholds"}}
    if most is not None:
        defaults["max"] = most
    options = {"displayMode": "gradient", "orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}, "showUnfilled": True}
    new = panel("bargauge", title, queries, text, fieldConfig=fields(defaults), options=options)
    for target in new["targets"]:
        target |= {"instant": True, "range": False}
    return new


def states(title, queries, text, named: dict) -> dict:
    """A band for each series; `named` gives the word and the colour of each value."""
    mappings = {str(value): {"text": word, "color": colour} for value, (word, colour) in named.items()}
    defaults = {
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "mappings": [{"type": "value", "options": mappings}],
        "color": {"mode": "fixed"},
    }
    options = {"mergeValues": True, "showValue": "never", "rowHeight": 0.85, "legend": {"showLegend": True, "placement": "bottom", "displayMode": "list"}}
    return panel("state-timeline", title, queries, text, fieldConfig=fields(defaults), options=options)


def heat(title, expr, text, unit="s") -> dict:
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64, "exponent": 0.4, "fill": "dark-blue"},
        "yAxis": {"unit": unit},
        "cellGap": 0,
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True},
    }
    new = panel("heatmap", title, {"{{le}}": expr}, text, options=options, fieldConfig=fields({}))
    new["targets"][0]["format"] = "heatmap"
    return new


def fields(defaults: dict, colours: dict | None = None) -> dict:
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for name, colour in (colours or {}).items()
    ]
    return {"defaults": defaults, "overrides": overrides}


def thresholds(steps: dict) -> dict:
    """Green below the first of them."""
    first = {"color": GREEN, "value": None}
    return {"mode": "absolute", "steps": [first, *({"color": colour, "value": value} for value, colour in steps.items())]}


def row(title: str) -> dict:
    return {"id": next(ids), "type": "row", "title": title, "collapsed": False, "panels": []}


def laid_out(rows: list[tuple[str, int, list[dict]]]) -> list[dict]:
    """Panels of one height side by side, as wide as there is room for; four in a row at most, but tiles all in one."""
    panels, y = [], 0
    for title, height, members in rows:
        panels.append(row(title) | {"gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        per_line = len(members) if height < 6 else next(n for n in (3, 4, 2, 1) if len(members) % n == 0)
        for at, member in enumerate(members):
            width = 24 // per_line
            x = at % per_line
            panels.append(member | {"gridPos": {"x": x * width, "y": y + at // per_line * height, "w": width, "h": height}})
        y += -(-len(members) // per_line) * height
    return panels
