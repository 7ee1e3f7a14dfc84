"""Makes helm/holdfast/files/dashboard.json: how the service is, from top to bottom the way one looks for a cause."""

import json

from panels import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, bars, heat, laid_out, lines, states, tile
from slo import JOB, SLO

OURS = f'{JOB}, namespace=~"$namespace"'
NAMESPACE = 'namespace=~"$namespace"'
RATE = "$__rate_interval"
REQUESTS = "http_server_request_duration_seconds"
# P1: what half, 95 and 99 of 100 requests stay below.
P1 = {0.1: YELLOW, 0.5: ORANGE, 1: RED}
SHARE = {0.7: YELLOW, 0.9: RED}
BURNS = {burn["factor"]: RED if burn["severity"] == "page" else YELLOW for burn in reversed(SLO["burn"])}
CRITICALITIES = {"critical_plus": RED, "critical": ORANGE, "sheddable_plus": BLUE, "sheddable": GREY}


def main() -> str:
    rows = [
        ("At a glance", 4, glance()),
        ("Golden signals", 8, golden()),
        ("Promises", 8, promises()),
        ("Saturation", 8, saturation()),
        ("Shed and degraded", 8, shed()),
        ("Postgres: pools and replicas", 8, postgres()),
        ("Cache and Redis", 8, cache()),
        ("Other services", 8, dependencies()),
        ("Jobs, events and the live feed", 8, jobs()),
    ]
    return json.dumps(dashboard(laid_out(rows)), indent=1, ensure_ascii=False) + "\n"


def rate(metric: str, *matchers: str, by: str = "") -> str:
    return total(f"rate({metric}{{{', '.join([OURS, *matchers])}}}[{RATE}])", by)


def total(expr: str, by: str = "") -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def highest(metric: str, by: str, *matchers: str) -> str:
    return f"max by ({by}) ({metric}{{{', '.join([OURS, *matchers])}}})"


def quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', by=labels)})"


def burn(window: str) -> str:
    return f"holdfast:slo_bad:ratio{window}{{{NAMESPACE}}} / on (class, slo) group_left holdfast:slo_budget:ratio"


def glance() -> list[dict]:
    failed = rate(f"{REQUESTS}_count", 'http_response_status_code=~"5.."')
    asked = rate(f"{REQUESTS}_count")
    return [
        tile("Requests", asked, "HTTP requests a second.", "reqps"),
        tile("Failing", f"({failed} or vector(0)) / {asked}", "Answers 5xx.", "percentunit", {0.001: YELLOW, 0.01: RED}, 2),
        tile("p50", quantile(0.5, REQUESTS), "Half of the requests are answered within.", "s", {0.1: RED}),
        tile("p95", quantile(0.95, REQUESTS), "95 of 100 are.", "s", {0.5: RED}),
        tile("p99", quantile(0.99, REQUESTS), "99 of 100 are.", "s", {1: RED}),
        tile("Budget burns", f"max({burn('1h')})", "The worst class over an hour: at 1 the budget lasts 30 days.", "none", BURNS, 1),
        tile("Saturation", f"avg(admission_saturation_ratio{{{OURS}}})", "Wanted by what can be worked on at once.", "percentunit", SHARE, 0),
        tile("Done without", f"count(max by (name) (degradation_active{{{OURS}}}) > 0) or vector(0)", "See the bands below.", "none", {1: ORANGE}),
    ]


def golden() -> list[dict]:
    traffic = f'sum by (class) (holdfast:slo_total:rate5m{{{NAMESPACE}, slo="availability"}})'
    refusals = rate(f"{REQUESTS}_count", 'http_response_status_code=~"5..|429"', by="http_response_status_code")
    quantiles = {name: quantile(q, REQUESTS) for name, q in {"p50": 0.5, "p95": 0.95, "p99": 0.99}.items()}
    slowest = f"topk(8, {quantile(0.99, REQUESTS, 'http_route')} > 0)"
    calls = rate("rpc_server_call_duration_seconds_count", by="rpc_method, rpc_response_status_code")
    return [
        lines("Traffic", {"{{class}}": traffic}, "By class of routes, as deploy/slo.toml has them.", "reqps", stack=True),
        lines("Failures", {"{{http_response_status_code}}": refusals}, "503 and 504 are ours or a dependency's, 429 a client's limit.", "reqps",
              {"500": RED, "503": ORANGE, "504": PURPLE, "429": YELLOW}, stack=True),
        lines("Latency", quantiles, "Of all answers. The lines are what is promised.", "s", {"p50": GREEN, "p95": YELLOW, "p99": RED}, P1),
        heat("Where requests lie", total(f"increase({REQUESTS}_bucket{{{OURS}}}[{RATE}])", "le"), "How many took how long."),
        bars("Slowest routes", {"{{http_route}}": slowest}, "99 of 100 requests are answered within.", "s", P1, 2),
        lines("RPCs", {"{{rpc_method}} {{rpc_response_status_code}}": calls}, "Calls a second, by how they ended.", "reqps"),
    ]


def promises() -> list[dict]:
    return [
        lines("How fast budgets burn", {"{{class}} {{slo}}": f"{burn('1h')} > 0.01"}, "Over an hour. At 1 a budget lasts 30 days; the lines are the alerts.",
              "none", steps=BURNS),
        bars("Burnt in three days", {"{{class}} {{slo}}": burn("3d")}, "1 is a tenth of what 30 days allow.", "none", {0.7: YELLOW, 1: RED}, 2),
    ]


def saturation() -> list[dict]:
    flight = {
        "limit": f"sum(admission_limit{{{OURS}}})",
        "in flight": f"sum(admission_in_flight{{{OURS}}})",
        "waiting": f"sum(admission_queued{{{OURS}}})",
    }
    cpu = f"rate(process_cpu_seconds_total{{{OURS}}}[{RATE}])"
    return [
        lines("Saturation", {"{{instance}}": f"admission_saturation_ratio{{{OURS}}}"},
              "Wanted by what can be worked on at once: 3 is three times what can be taken. The autoscaler aims at 0.7.", "percentunit", steps=SHARE, most=1),
        lines("Requests at once", flight, "The limit finds itself: it sinks when more at once gets no more done.", "none",
              {"limit": GREY, "in flight": BLUE, "waiting": ORANGE}),
        lines("CPU", {"{{instance}}": cpu}, "Cores in use.", "none"),
        lines("Memory", {"{{instance}}": f"process_resident_memory_bytes{{{OURS}}}"}, "In RAM.", "bytes"),
        lines("Open files", {"{{instance}}": f"process_open_fds{{{OURS}}}"}, "Sockets, mostly.", "none"),
        lines("Tasks that wait to run", {"{{instance}} {{runtime}}": f"tokio_global_queue_depth{{{OURS}}}"}, "Above the number of workers for long: too little CPU.", "none"),
    ]


def shed() -> list[dict]:
    return [
        lines("Refused by criticality", {"{{criticality}}": rate("admission_refused_total", by="criticality")},
              "For want of capacity: the grey ones first, the red ones last.", "reqps", CRITICALITIES, stack=True),
        lines("Refused, and why", {"{{reason}}": rate("admission_refused_total", by="reason")},
              "Full: no place to wait. Waited: in vain. Unfair: the caller has its part.", "reqps", stack=True),
        lines("Over a limit", {"{{policy}}": rate("rate_limit_refused_requests_total", by="policy")}, "429, by policy.", "reqps", stack=True),
        states("What is done without", {"{{name}}": highest("degradation_active", "name")}, "As the header Degraded and /ready name it.",
               {0: ("all there", GREEN), 1: ("without", ORANGE)}),
        states("Switched off by the load or by hand", {"{{flag}}": f"min by (flag) (flag_on{{{OURS}}})"}, "Flags that are off.",
               {1: ("on", GREEN), 0: ("off", PURPLE)}),
        lines("Brownout", {"{{instance}}": f"brownout_level{{{OURS}}}"}, "How many features the load has switched off.", "none"),
    ]


def postgres() -> list[dict]:
    in_use = total(f'db_client_connections{{{OURS}, state="in_use"}}', "pool")
    most = total(f"db_client_connections_max{{{OURS}}}", "pool")
    lost = {
        "no connection for {{pool}}": rate("db_client_connections_timeouts_total", by="pool"),
        "closed in {{pool}}: {{reason}}": rate("db_client_connections_evicted_total", by="pool, reason"),
    }
    reads = {
        "for a replica: {{reason}}": rate("reads_on_primary_total", by="reason"),
        "own writes seen on {{node}}": rate("consistent_reads_total", by="node"),
    }
    return [
        lines("Pools in use", {"{{pool}}": f"{in_use} / {most}"}, "Of the connections that all processes may open.", "percentunit", steps=SHARE, most=1),
        lines("Wait for a connection, p99", {"{{pool}}": quantile(0.99, "db_client_connections_wait_seconds", "pool")}, "Opening included.", "s", steps={0.1: RED}),
        lines("Connections lost", lost, "Requests that got none in time, and connections that could not be used again.", "ops"),
        lines("Statements, p95", {"{{node}}": quantile(0.95, "db_client_operation_duration_seconds", "node")}, "On the primary and on replicas.", "s"),
        lines("Replica lag", {"{{node}}": highest("postgres_replica_lag_seconds", "node")}, "Beyond the line a replica takes no reads.", "s", steps={1: RED}),
        lines("Reads with a reason", reads, "On the primary instead of a replica, and such that had to see what their client wrote.", "ops"),
    ]


def cache() -> list[dict]:
    def ratio(level: str) -> str:
        on_level, found = f'level="{level}"', 'outcome=~"hit|joined"'
        return f"{rate('cache_requests_total', on_level, found)} / {rate('cache_requests_total', on_level)}"

    return [
        lines("Hits", {"in the process": ratio("local"), "in Redis": ratio("redis")}, "Of the look-ups on each level; Redis sees only what the process has not.",
              "percentunit", {"in the process": GREEN, "in Redis": BLUE}, most=1),
        lines("Loads and stale answers", {
            "{{cache}} loaded: {{outcome}}": rate("cache_loads_total", by="cache, outcome"),
            "{{cache}} stale: {{outcome}}": rate("cache_stale_total", by="cache, outcome"),
        }, "What went to Postgres, and what was served past its time.", "ops"),
        lines("Redis, p99", {"{{outcome}}": quantile(0.99, "redis_command_duration_seconds", "outcome")}, "Commands, by how they ended.", "s"),
        lines("Redis commands", {"{{outcome}}": rate("redis_command_duration_seconds_count", by="outcome")}, "Refused and full never reach it.", "ops",
              {"ok": GREEN, "error": RED, "timeout": ORANGE, "refused": PURPLE, "full": YELLOW}, stack=True),
    ]


def dependencies() -> list[dict]:
    return [
        states("Breakers", {"{{dependency}}": highest("breaker_state", "dependency")}, "The worst of all processes.",
               {0: ("closed", GREEN), 1: ("half-open", YELLOW), 2: ("open", RED)}),
        lines("Answers, p95", {"{{dependency}}": quantile(0.95, "outbound_attempt_duration_seconds", "dependency")}, "Of single attempts.", "s"),
        lines("Calls and retries", {
            "{{dependency}} {{outcome}}": rate("outbound_calls_total", by="dependency, outcome"),
            "{{dependency}} again": rate("outbound_retries_total", by="dependency"),
        }, "Retries are at most a tenth of the calls.", "ops"),
    ]


def jobs() -> list[dict]:
    return [
        lines("Jobs that wait", {"{{kind}}": highest("jobs_waiting", "kind")}, "In the whole fleet.", "none", stack=True),
        lines("Oldest job", {"{{kind}}": highest("jobs_oldest_age_seconds", "kind")}, "For how long it has waited.", "s"),
        lines("Jobs that ended", {"{{kind}} {{outcome}}": rate("jobs_total", by="kind, outcome")}, "Attempts, by outcome.", "ops", stack=True),
        bars("Dead", {"{{kind}}": highest("jobs_dead", "kind")}, "Nobody tries them any more: holdfast jobs dead.", "none", {1: RED}),
        lines("Outbox delay, p99", {"to the feed": quantile(0.99, "outbox_delay_seconds"), "to the socket": quantile(0.99, "live_delay_seconds")},
              "From a commit until others hear of it.", "s"),
        lines("Analytics", {
            "written": rate("events_written_total"),
            "dropped: {{reason}}": rate("events_dropped_total", by="reason"),
            "waiting": f"sum(events_queued{{{OURS}}})",
        }, "The first to be dropped.", "none", {"written": GREEN, "waiting": GREY}),
        lines("Sockets", {"{{kind}}": total(f"live_sockets{{{OURS}}}", "kind")}, "Open.", "none", stack=True),
        lines("Messages to sockets", {"{{topic}}": rate("live_delivered_total", by="topic")}, "A second.", "ops", stack=True),
    ]


def dashboard(panels: list[dict]) -> dict:
    return {
        "uid": "holdfast",
        "title": "Holdfast",
        "description": "How the service is. Made by deploy/alerts/dashboard.py; not to be edited here.",
        "tags": ["holdfast"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source", "hide": 0},
            {
                "name": "namespace",
                "type": "query",
                "label": "Namespace",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "query": {"query": f"label_values(up{{{JOB}}}, namespace)", "refId": "namespace"},
                "definition": f"label_values(up{{{JOB}}}, namespace)",
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            },
        ]},
        "annotations": {"list": [
            {
                "name": "Starts",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "enable": True,
                "iconColor": BLUE,
                "expr": f"changes(process_start_time_seconds{{{OURS}}}[1m]) > 0",
                "titleFormat": "{{instance}} was started",
            },
        ]},
        "links": [{"title": "Runbooks", "type": "link", "url": SLO["runbooks"], "targetBlank": True, "icon": "doc"}],
        "panels": panels,
    }


if __name__ == "__main__":
    print(main(), end="")
