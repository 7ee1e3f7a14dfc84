"""Makes helm/holdfast/files/alerts.yaml of deploy/slo.toml: what is recorded for the budgets, and every alert."""

from slo import JOB, SLO, THRESHOLDS, bucket, latency, number, seconds, selector

HEAD = "# Made of deploy/slo.toml by deploy/alerts/rules.py; not to be edited.\n"
# What a client takes for a failure of ours.
HTTP_FAILED = 'http_response_status_code=~"5.."'
HTTP_ANSWERED = 'http_response_status_code!~"5.."'
RPC_CODES = "UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS"
RPC_FAILED = f'rpc_response_status_code=~"{RPC_CODES}"'
RPC_ANSWERED = f'rpc_response_status_code!~"{RPC_CODES}"'


def main() -> str:
    return HEAD + document(all_groups())


def all_groups() -> dict:
    return {"holdfast-rates": rates()} | after_rates()


def after_rates() -> dict:
    """All that rests on what is recorded of requests, or asks the service's own series."""
    return {"holdfast-budgets": budgets(), "holdfast": alerts()}


def document(groups: dict) -> str:
    return "groups:\n" + "".join(group(*each) for each in groups.items())


def rates() -> list[dict]:
    """For each promise of each class: how many requests it is about, and how many break it."""
    return [rule for cls in SLO["class"] for rule in [*availability_rates(cls), *latency_rates(cls)]]


def availability_rates(cls: dict) -> list[dict]:
    metric, failed, _ = instrument(cls)
    labels = {"class": cls["name"], "slo": "availability"}
    total = f"sum by (namespace) (rate({metric}_count{selector(cls)}[5m]))"
    bad = f"sum by (namespace) (rate({metric}_count{selector(cls, failed)}[5m]))"
    # A failure's series is not there before the first one.
    none = f"or on (namespace) 0 * holdfast:slo_total:rate5m{matching(labels)}"
    return [
        record("holdfast:slo_total:rate5m", total, labels),
        record("holdfast:slo_bad:rate5m", f"{bad}\n{none}", labels),
    ]


def latency_rates(cls: dict) -> list[dict]:
    metric, _, answered = instrument(cls)
    rules = []
    for bound in latency(cls):
        labels = {"class": cls["name"], "slo": f"latency_{bound}"}
        total = f"sum by (namespace) (rate({metric}_count{selector(cls, answered)}[5m]))"
        le = f'le="{bucket(bound)}"'
        good = f"sum by (namespace) (rate({metric}_bucket{selector(cls, answered, le)}[5m]))"
        rules += [
            record("holdfast:slo_total:rate5m", total, labels),
            record(
                "holdfast:slo_bad:rate5m",
                f"clamp_min(holdfast:slo_total:rate5m{matching(labels)}\n- on (namespace) {good}, 0)",
                labels,
            ),
        ]
    return rules


def instrument(cls: dict) -> tuple[str, str, str]:
    if cls.get("rpc"):
        return "rpc_server_call_duration_seconds", RPC_FAILED, RPC_ANSWERED
    return "http_server_request_duration_seconds", HTTP_FAILED, HTTP_ANSWERED


def budgets() -> list[dict]:
    """The part of the requests that may break a promise, and that did, over each window."""
    rules = []
    for cls in SLO["class"]:
        promises = {"availability": cls["availability"]}
        promises |= {f"latency_{bound}": percent for bound, percent in latency(cls).items()}
        for slo, percent in promises.items():
            budget = f"vector({number(1 - percent / 100)})"
            rules.append(record("holdfast:slo_budget:ratio", budget, {"class": cls["name"], "slo": slo}))
    bad, total = "holdfast:slo_bad:rate5m", "holdfast:slo_total:rate5m"
    rules.append(record("holdfast:slo_bad:ratio5m", f"{bad} / {total}"))
    windows = {window for burn in SLO["burn"] for window in (burn["long"], burn["short"])} - {"5m"}
    for window in sorted(windows, key=seconds):
        ratio = f"sum_over_time({bad}[{window}]) / sum_over_time({total}[{window}])"
        rules.append(record(f"holdfast:slo_bad:ratio{window}", ratio))
    return rules


def alerts() -> list[dict]:
    return [*burning(), *unavailable(), *saturated(), *databases(), *dependencies(), *jobs()]


def burning() -> list[dict]:
    return [alert for burn in SLO["burn"] for alert in (burns(burn, "availability"), burns(burn, "latency"))]


def burns(burn: dict, kind: str) -> dict:
    factor, long, short = number(burn["factor"]), burn["long"], burn["short"]
    which = '{slo="availability"}' if kind == "availability" else '{slo=~"latency_.+"}'
    burnt = f"> on (class, slo) group_left {factor} * holdfast:slo_budget:ratio"
    # Over the window, of failures per second, times its seconds.
    failures = f"avg_over_time(holdfast:slo_bad:rate5m{which}[{long}]) * {number(seconds(long))}"
    expr = (
        f"holdfast:slo_bad:ratio{long}{which} {burnt}\n"
        f"and holdfast:slo_bad:ratio{short}{which} {burnt}\n"
        f"and {failures} >= {SLO['failures_min']}"
    )
    what = "of {{ $labels.class }} requests fail" if kind == "availability" else "of {{ $labels.class }} requests break {{ $labels.slo }}"
    name = {"availability": "Errors", "latency": "Latency"}[kind]
    return alert(
        f"Holdfast{name}Burn{factor.split('.')[0]}x",
        expr,
        burn["severity"],
        f"{{{{ $value | humanizePercentage }}}} {what}, {factor} times what 30 days allow",
    )


def unavailable() -> list[dict]:
    starts = THRESHOLDS["restarts"]
    return [
        alert(
            "HoldfastDown",
            f"sum by (namespace) (up{{{JOB}}}) == 0\nor absent(up{{{JOB}}})",
            "page",
            "No process of the service can be scraped",
            "2m",
        ),
        alert(
            "HoldfastRestarting",
            f"max by (namespace, instance) (changes(process_start_time_seconds{{{JOB}}}[15m])) > {starts}",
            "ticket",
            "{{ $labels.instance }} was started {{ $value }} times in 15 minutes",
        ),
    ]


def saturated() -> list[dict]:
    refused = f"rate(admission_refused_total{{{JOB}}}[5m])"
    critical = f'rate(admission_refused_total{{{JOB}, criticality=~"critical|critical_plus"}}[5m])'
    total = 'sum by (namespace) (holdfast:slo_total:rate5m{slo="availability"})'
    return [
        alert(
            "HoldfastSaturated",
            f"avg by (namespace) (admission_saturation_ratio{{{JOB}}}) > {THRESHOLDS['saturation']}",
            "ticket",
            "{{ $value | humanizePercentage }} of what can be worked on at once is wanted, and nothing brings it down",
            "10m",
        ),
        alert(
            "HoldfastShedsCritical",
            f"sum by (namespace) ({critical}) > {THRESHOLDS['critical_refused_per_second']}",
            "page",
            "{{ $value | humanize }} critical requests a second are refused for want of capacity",
            "5m",
        ),
        alert(
            "HoldfastSheds",
            f"sum by (namespace) ({refused})\n/ {total}\n> {number(THRESHOLDS['refused_percent'] / 100)}",
            "ticket",
            "{{ $value | humanizePercentage }} of all requests are refused for want of capacity",
            "10m",
        ),
    ]


def databases() -> list[dict]:
    wait = f"sum by (namespace, pool, le) (rate(db_client_connections_wait_seconds_bucket{{{JOB}}}[5m]))"
    timeouts = f"sum by (namespace, pool) (rate(db_client_connections_timeouts_total{{{JOB}}}[5m]))"
    lag = f"max by (namespace, node) (postgres_replica_lag_seconds{{{JOB}}})"
    return [
        alert(
            "HoldfastPoolWait",
            f"histogram_quantile(0.99, {wait}) > {number(seconds(THRESHOLDS['pool_wait']))}",
            "ticket",
            "One in a hundred waits {{ $value | humanizeDuration }} or longer for a connection of {{ $labels.pool }}",
            "10m",
        ),
        alert(
            "HoldfastPoolTimeouts",
            f"{timeouts} > {THRESHOLDS['pool_timeouts_per_second']}",
            "page",
            "{{ $value | humanize }} requests a second get no connection of {{ $labels.pool }} in time",
            "5m",
        ),
        alert(
            "HoldfastReplicaLag",
            f"{lag} > {number(seconds(THRESHOLDS['replica_lag']))}",
            "ticket",
            "{{ $labels.node }} is {{ $value | humanizeDuration }} behind and takes no reads",
            "5m",
        ),
    ]


def dependencies() -> list[dict]:
    away = f'max by (namespace, name) (degradation_active{{{JOB}, name=~"primary_away|redis_away|payments_away"}})'
    replica = f'max by (namespace, name) (degradation_active{{{JOB}, name="replica_away"}})'
    return [
        alert("HoldfastDependencyAway", f"{away} > 0", "page", "{{ $labels.name }}: the service does without it", "2m"),
        alert("HoldfastReplicaAway", f"{replica} > 0", "ticket", "A replica takes no reads; the others do its work", "10m"),
        alert(
            "HoldfastBreakerOpen",
            # Half-open too: between two probes that fail it is that for a moment.
            f"max by (namespace, dependency) (breaker_state{{{JOB}}}) > 0",
            "ticket",
            "The breaker before {{ $labels.dependency }} stays open",
            "5m",
        ),
    ]


def jobs() -> list[dict]:
    def age(criticality: str) -> str:
        return f'max by (namespace, kind) (jobs_oldest_age_seconds{{{JOB}, criticality=~"{criticality}"}})'

    relaying = f"max by (namespace) (outbox_relaying{{{JOB}}}) < 1"
    failing = f"sum by (namespace) (rate(outbox_failures_total{{{JOB}}}[5m])) > 0"
    claims = f"sum by (namespace) (rate(jobs_claim_seconds_count{{{JOB}}}[5m])) > 0"
    late = "The oldest {{ $labels.kind }} has waited for {{ $value | humanizeDuration }}"
    return [
        alert(
            "HoldfastCriticalJobsLate",
            f"{age('critical.*')} > {number(seconds(THRESHOLDS['jobs_critical_age']))}",
            "page",
            late,
            "5m",
        ),
        alert(
            "HoldfastJobsLate",
            f"{age('sheddable.*')} > {number(seconds(THRESHOLDS['jobs_age']))}",
            "ticket",
            late,
            "5m",
        ),
        alert(
            "HoldfastDeadLetters",
            f"max by (namespace, kind) (jobs_dead{{{JOB}}}) > 0",
            "ticket",
            "{{ $value }} jobs {{ $labels.kind }} are dead: nobody tries them any more",
            "5m",
        ),
        alert(
            "HoldfastNoWorker",
            f"sum by (namespace) (up{{{JOB}}}) > 0\nunless on (namespace) {claims}",
            "page",
            "No process looks for jobs",
            "10m",
        ),
        alert(
            "HoldfastOutboxStalled",
            f"{relaying}\nor {failing}",
            "ticket",
            "What was committed does not reach the live feed",
            "5m",
        ),
    ]


def alert(name: str, expr: str, severity: str, summary: str, pending: str = "2m") -> dict:
    return {
        "alert": name,
        "expr": expr,
        "for": pending,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "runbook_url": f"{SLO['runbooks']}{name}.md"},
    }


def record(name: str, expr: str, labels: dict | None = None) -> dict:
    return {"record": name, "expr": expr} | ({"labels": labels} if labels else {})


def matching(labels: dict) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def group(name: str, rules: list[dict]) -> str:
    return f"  - name: {name}\n    rules:\n" + "".join(map(written, rules))


def written(rule: dict) -> str:
    """A rule as YAML: expressions as blocks, so that they are read as they are."""
    lines = []
    for key, value in rule.items():
        if key == "expr":
            lines += ["expr: |-", *(f"  {line}" for line in value.splitlines())]
        elif isinstance(value, dict):
            lines += [f"{key}:", *(f"  {word}: {quoted(text)}" for word, text in value.items())]
        else:
            lines.append(f"{key}: {value}")
    return "".join(f"{'      - ' if at == 0 else '        '}{line}\n" for at, line in enumerate(lines))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    print(main(), end="")
