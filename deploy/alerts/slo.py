"""What deploy/slo.toml says, read once for all that is made of it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
SLO = tomllib.loads((ROOT / "deploy/slo.toml").read_text())
JOB = f'job="{SLO["job"]}"'
THRESHOLDS = SLO["thresholds"]


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration).groups()
    return int(number) * SECONDS[unit]


def number(value: float) -> str:
    return f"{value:.10g}"


def bucket(duration: str) -> str:
    """The label `le` of the bucket that ends there, as the service writes it."""
    return repr(float(seconds(duration)))


def selector(cls: dict, *matchers: str) -> str:
    """Matches the samples of a class of routes, or of all RPCs."""
    routes = [] if cls.get("rpc") else [f'http_route=~"{any_below(cls["routes"])}"']
    return "{" + ", ".join([JOB, *routes, *matchers]) + "}"


def any_below(routes: list[str]) -> str:
    return "|".join(f"{route}(/.*)?" for route in routes)


def latency(cls: dict) -> dict:
    return cls.get("latency", SLO["latency"])
