"""Makes promtool's test files of cases.toml, in the folder that is its argument, and says what is missing."""

import json
import sys
import tomllib
from pathlib import Path

from rules import after_rates, alerts, all_groups, document
from slo import ROOT, SLO

RULES = ROOT / "helm/holdfast/files/alerts.yaml"
RUNBOOKS = ROOT / "deploy/runbooks"
CASES = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())
# What Prometheus adds when it scrapes.
TARGET = {"job": SLO["job"], "namespace": "shop"}
ALERTS = {alert["alert"]: alert for alert in alerts()}
DETAILS = {"at", "scrape", "labels", "summary"}


def main(folder: Path) -> None:
    cases = {name: case for name, case in CASES.items() if name != "idle"}
    if faults := missing(cases):
        sys.exit("\n".join(faults))
    groups = [(case.get("scrape", "1m"), group) for name, case in cases.items() for group in groups_of(name, case)]
    groups += [("1m", quiet("no traffic", CASES["idle"])), ("1m", nothing_at_all())]
    # A series that is given must not be recorded too.
    (folder / "after-rates.yaml").write_text(document(after_rates()))
    for scrape in {scrape for scrape, _ in groups}:
        is_recorded = scrape in ("10m", "30m")
        tests = {
            "rule_files": ["after-rates.yaml" if is_recorded else str(RULES)],
            "evaluation_interval": scrape,
            # By chance otherwise, and what was recorded the last time is too old to be seen here.
            "group_eval_order": list(after_rates() if is_recorded else all_groups()),
            "tests": [group for other, group in groups if other == scrape],
        }
        (folder / f"cases-{scrape}.json").write_text(json.dumps(tests, indent=1))
    print(f"{len(ALERTS)} alerts; {len(groups)} scenarios, one of them that of no traffic for all of them")


def missing(cases: dict) -> list[str]:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    faults = [f"{name}: no page deploy/runbooks/{name}.md" for name in ALERTS.keys() - pages]
    faults += [f"deploy/runbooks/{page}.md: no alert of that name" for page in pages - ALERTS.keys()]
    faults += [f"{name}: no cases in cases.toml" for name in ALERTS.keys() - cases.keys()]
    faults += [f"cases.toml: no alert {name}" for name in cases.keys() - ALERTS.keys()]
    for name, case in cases.items():
        if "fires" not in case or len(case.keys() - DETAILS) < 2:
            faults.append(f"{name}: needs a case that fires and one that does not")
    return sorted(faults)


def groups_of(name: str, case: dict) -> list[dict]:
    groups = []
    for which, series in case.items():
        if which not in DETAILS:
            fires = [fired(name, case, which)] if which.startswith("fires") else []
            groups.append(group(f"{name}: {which}", case, series, [test(case["at"], name, fires)]))
    return groups


def fired(name: str, case: dict, which: str) -> dict:
    labels, summary = case["labels"], case["summary"]
    if which != "fires":
        cls = which.removeprefix("fires for ")
        labels, summary = labels | {"class": cls}, summary.replace(labels["class"], cls)
    return {
        "exp_labels": {"namespace": TARGET["namespace"]} | labels,
        "exp_annotations": {"summary": summary, "runbook_url": f"{SLO['runbooks']}{name}.md"},
    }


def quiet(name: str, series: dict) -> dict:
    tests = [test(at, alert, []) for alert in ALERTS for at in ("30m", "85m")]
    return group(name, {}, series, tests)


def nothing_at_all() -> dict:
    """No process of the service, so nothing to be seen of it: one alert for that, and no other."""
    down = {"severity": "page", "job": SLO["job"]}
    annotations = {"summary": CASES["HoldfastDown"]["summary"], "runbook_url": f"{SLO['runbooks']}HoldfastDown.md"}
    fires = [{"exp_labels": down, "exp_annotations": annotations}]
    tests = [test("30m", alert, fires if alert == "HoldfastDown" else []) for alert in ALERTS]
    return group("nothing at all", {}, {}, tests)


def group(name: str, case: dict, series: dict, tests: list[dict]) -> dict:
    inputs = [{"series": with_target(key), "values": values} for key, values in series.items()]
    return {"name": name, "interval": case.get("scrape", "1m"), "input_series": inputs, "alert_rule_test": tests}


def test(at: str, alert: str, fires: list[dict]) -> dict:
    return {"eval_time": at, "alertname": alert, "exp_alerts": fires}


def with_target(series: str) -> str:
    name, _, labels = series.partition("{")
    # What is recorded is of all targets of a namespace.
    target = {"namespace": TARGET["namespace"]} if name.startswith("holdfast:") else TARGET
    added = ", ".join(f'{key}="{value}"' for key, value in target.items())
    return f"{name}{{{added}, {labels}" if labels else f"{name}{{{added}}}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
