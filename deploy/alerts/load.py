"""Some minutes in the life of a shop, for the picture of the dashboard: calm, a rush, a recommender that hangs, calm."""

import http.client
import itertools
import json
import random
import sys
import threading
import time
import urllib.request
import uuid
from urllib.parse import urlsplit

# Seconds, clients, whether the recommender hangs.
PHASES = [(70, 6, False), (60, 48, False), (50, 6, False), (60, 6, True), (60, 6, False)]
CUSTOMER = {"email": "customer@holdfast.test", "password": "customer-of-holdfast"}
CLIENTS_MAX = max(clients for _, clients, _ in PHASES)
wanted = 0
stopped = threading.Event()
counts = {}


def main(service: str, upstream: str) -> None:
    global wanted
    until_ready(service)
    products = [item["id"] for item in ask_once(service, "/v1/products?limit=100")["items"]]
    clients = [threading.Thread(target=client, args=(number, service, products), daemon=True) for number in range(CLIENTS_MAX)]
    for each in clients:
        each.start()
    for seconds, number, hangs in PHASES:
        wanted = number
        put(f"{upstream}/behaviour/recommendations", {"hang": hangs})
        stopped.wait(seconds)
    stopped.set()
    for each in clients:
        each.join(15)
    print("answers:", dict(sorted(counts.items(), key=str)))


def client(number: int, service: str, products: list[str]) -> None:
    address = urlsplit(service)
    connection, headers = None, {}
    for turn in itertools.count():
        if stopped.is_set():
            return
        if number >= wanted:
            stopped.wait(0.2)
            continue
        try:
            connection = connection or http.client.HTTPConnection(address.hostname, address.port, timeout=10)
            if number % 6 == 0 and not headers:
                headers = sign_in(connection)
            status = one(connection, headers, products)
        except (OSError, http.client.HTTPException):
            connection, status = None, "lost"
        counts[status] = counts.get(status, 0) + 1
        if status == 401:
            # Of one customer only so many sessions are kept.
            headers = {}
        stopped.wait(random.expovariate(1 / (0.03 if wanted < CLIENTS_MAX else 0.012)))


def one(connection, headers: dict, products: list[str]) -> int:
    product, dice = random.choice(products), random.random()
    if headers and dice < 0.25:
        order = {"lines": [{"product_id": product, "quantity": 1}]}
        return ask(connection, "POST", "/v1/orders", headers | {"Idempotency-Key": uuid.uuid4().hex}, order)
    if headers and dice < 0.4:
        return ask(connection, "GET", "/v1/orders", headers)
    if dice < 0.5:
        return ask(connection, "GET", f"/v1/products/{product}/recommendations")
    if dice < 0.65:
        return ask(connection, "GET", "/v1/products?limit=20")
    if dice < 0.7:
        return ask(connection, "POST", "/v1/events", {}, {"events": [{"name": "product_viewed"}]})
    return ask(connection, "GET", f"/v1/products/{product}")


def sign_in(connection) -> dict:
    connection.request("POST", "/v1/session", json.dumps(CUSTOMER), {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex})
    answer = connection.getresponse()
    answer.read()
    cookie = (answer.headers["Set-Cookie"] or "").split(";")[0]
    return {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"} if cookie else {}


def ask(connection, method: str, path: str, headers: dict | None = None, body: dict | None = None) -> int:
    content = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, json.dumps(body) if body else None, (headers or {}) | content)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def ask_once(service: str, path: str) -> dict:
    with urllib.request.urlopen(service + path, timeout=10) as answer:
        return json.load(answer)


def put(url: str, body: dict) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def until_ready(service: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(f"{service}/ready", timeout=2).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
