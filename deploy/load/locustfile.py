"""The reads of `make load`, for Locust: see "Load tests" in deploy/README.md. Users wait for an answer before they ask again."""

import random

from locust import FastHttpUser, constant_pacing, task


class Shopper(FastHttpUser):
    wait_time = constant_pacing(1)

    def on_start(self):
        page = self.client.get("/v1/products?limit=100").json()
        self.products = [product["id"] for product in page["items"]]

    @task(7)
    def product(self):
        self.client.get(f"/v1/products/{random.choice(self.products)}", name="/v1/products/{id}")

    @task(2)
    def page(self):
        self.client.get("/v1/products?limit=20", name="/v1/products")
