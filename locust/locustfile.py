"""Load for the pricing API: shoppers who look at products, baskets that are priced at once, a merchant who asks why.

    locust -f locust/locustfile.py --host http://127.0.0.1:8000

An answer counts as good only if it is right: status 200, the product that was asked for, a positive price, a known
source. See README.md beside this file for the commands and for what good looks like.
"""

import random

from locust import FastHttpUser, between, events, task
from locust.runners import WorkerRunner

PRODUCTS = [f"P-{number}" for number in range(100, 1000)]
LOCATIONS = ["NY", "LA", "MIA"]
SOURCES = ["database", "cache"]

PRICE = "/api/v1/price"
PRICES = "/api/v1/prices"
EXPLANATION = "/api/v1/products/{product_id}/explanation"

P95_LIMIT_MS = 150


class Shopper(FastHttpUser):
    """Opens one product page after the other."""

    weight = 40
    wait_time = between(0.5, 2)

    @task
    def look_at_product(self):
        product_id = random.choice(PRODUCTS)
        body = {"product_id": product_id, **shopper()}
        with self.client.post(PRICE, json=body, catch_response=True) as response:
            judge(response, lambda answer: what_is_wrong_with_price(answer, product_id))


class Basket(FastHttpUser):
    """Has a list of products priced in one request, as a search page or a checkout does."""

    weight = 8
    wait_time = between(2, 5)

    @task
    def price_basket(self):
        items = [
            {"product_id": product_id, "quantity": random.randint(1, 4)}
            for product_id in random.sample(PRODUCTS, random.randint(5, 40))
        ]
        with self.client.post(PRICES, json={**shopper(), "items": items}, catch_response=True) as response:
            judge(response, lambda answer: what_is_wrong_with_prices(answer, items))


class Merchant(FastHttpUser):
    """Asks now and then why a product costs what it costs."""

    weight = 1
    wait_time = between(5, 15)

    @task
    def ask_why(self):
        product_id = random.choice(PRODUCTS)
        path = EXPLANATION.format(product_id=product_id)
        with self.client.get(path, name=EXPLANATION, catch_response=True) as response:
            judge(response, lambda answer: what_is_wrong_with_explanation(answer, product_id))


def shopper():
    """Who asks: where they are, and whether they are a prime member."""
    return {"user_location": random.choice(LOCATIONS), "is_prime_member": random.random() < 0.5}


def judge(response, what_is_wrong):
    """Marks a response as failed, with the reason, unless it is a good answer."""
    if response.status_code != 200:
        response.failure(f"status {response.status_code}: {(response.text or str(response.error))[:200]}")
        return
    try:
        problem = what_is_wrong(response.json())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"not the shape that was promised: {error!r}"
    if problem:
        response.failure(problem)


def what_is_wrong_with_price(answer, product_id):
    if answer["product_id"] != product_id:
        return "price of another product"
    if not answer["final_price"] > 0:
        return "final_price is not positive"
    if answer["source"] not in SOURCES:
        return "source is neither database nor cache"
    return None


def what_is_wrong_with_prices(answer, items):
    prices = answer["prices"]
    if [price["product_id"] for price in prices] != [item["product_id"] for item in items]:
        return "not the items that were asked for, in their order"
    for item in prices:
        if "error" in item:
            return f"an item failed: {item['error'].get('type')}"
        problem = what_is_wrong_with_price(item["price"], item["product_id"])
        if problem:
            return f"an item is wrong: {problem}"
    return None


def what_is_wrong_with_explanation(answer, product_id):
    if answer["product_id"] != product_id:
        return "explanation of another product"
    if not answer["list_price"] > 0:
        return "list_price is not positive"
    return None


@events.quitting.add_listener
def judge_run(environment, **_):
    """A run that fails a request or is slow ends with exit code 1. With several processes, the first one judges."""
    if isinstance(environment.runner, WorkerRunner):
        return
    total = environment.stats.total
    p95_ms = environment.stats.get(PRICE, "POST").get_response_time_percentile(0.95) or 0
    if total.num_requests == 0:
        print("FAILED: no request was made")
    elif total.num_failures > 0:
        print(f"FAILED: {total.num_failures} of {total.num_requests} requests")
    elif p95_ms >= P95_LIMIT_MS:
        print(f"FAILED: P95 of {PRICE} is {p95_ms:.0f} ms, allowed: below {P95_LIMIT_MS} ms")
    else:
        print(f"PASSED: {total.num_requests} requests, none failed, P95 of {PRICE} {p95_ms:.0f} ms")
        return
    environment.process_exit_code = 1
