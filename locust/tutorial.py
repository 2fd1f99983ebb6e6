"""The simplest load: what a first exercise in load testing would send.

    locust -f locust/tutorial.py --host http://127.0.0.1:8000

Every user asks for the price of a random product each half to two seconds and expects status 200, nothing more.
"""

from random import choice, randint

from locust import HttpUser, between, task


class PriceUser(HttpUser):
    wait_time = between(0.5, 2)

    @task
    def ask_for_price(self):
        asked = {
            "product_id": f"P-{randint(100, 999)}",
            "user_location": choice(["NY", "LA", "MIA"]),
            "is_prime_member": choice([True, False]),
        }
        with self.client.post("/api/v1/price", json=asked, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}, expected 200")
