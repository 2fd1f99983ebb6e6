"""The service that somebody would write instead: FastAPI, one GET from Redis, the same answer.

Tuned as its users do: uvicorn with uvloop and httptools, a process for each core, orjson, hiredis, no models in
between. It knows one offer rule for locations, one for prime members and two limits; no policies, no explanation, no
memory of its own, no metrics.

    REDIS_URL=… uvicorn --workers 2 --loop uvloop --http httptools --no-access-log fastapi_price:app

The entries are hashes' worth of JSON under peer:{product_id}, put there by the bench.
"""

import os
from decimal import ROUND_HALF_EVEN, Decimal

import orjson
import redis.asyncio
from fastapi import FastAPI, Request, Response

app = FastAPI()
store = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])

CENT = Decimal("0.01")
LOCATION = Decimal("0.95")
PRIME = Decimal("0.95")


@app.get("/readyz")
async def ready():
    return {}


@app.post("/price")
async def price(request: Request):
    asked = orjson.loads(await request.body())
    product_id = asked["product_id"]
    stored = await store.get(f"peer:{product_id}")
    if stored is None:
        return Response(status_code=404)
    entry = orjson.loads(stored)
    amount = Decimal(entry["list_price"]) * LOCATION
    discount = 0.0
    if asked.get("is_prime_member"):
        amount *= PRIME
        discount = 0.05
    amount = min(max(amount, Decimal(entry["lowest"])), Decimal(entry["highest"]))
    amount = amount.quantize(CENT, ROUND_HALF_EVEN)
    answer = {
        "product_id": product_id,
        "final_price": float(amount),
        "base_price": float(entry["base_price"]),
        "list_price": float(entry["list_price"]),
        "discount_rate": discount,
        "source": "cache",
        "currency": entry["currency"],
        "policy_version": entry["policy_version"],
        "revision": entry["revision"],
        "valid_until": None,
    }
    return Response(orjson.dumps(answer), media_type="application/json", headers={"x-cache": "l2"})
