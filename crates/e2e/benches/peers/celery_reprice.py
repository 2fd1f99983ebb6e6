"""The worker that somebody would write instead: Celery, prices re-made in bulk.

A task has a thousand products: one SELECT, decimal arithmetic, executemany for prices and history in one transaction,
one pipeline of SETs. It knows one rule and two limits, and keeps a short explanation; nothing keeps an older price from
replacing a newer one.

    python celery_reprice.py REDIS_URL PRODUCTS     starts two workers, re-prices PRODUCTS products, prints the seconds
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from decimal import ROUND_HALF_EVEN, Decimal

import celery
import redis

BATCH = 1_000
WORKERS = 2
CENT = Decimal("0.01")
RAISE = Decimal("1.03")

app = celery.Celery("celery_reprice", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.worker_prefetch_multiplier = 1
connections = {}


def stores():
    """One connection to each store for each process."""
    if not connections:
        connections["database"] = connect(os.environ["DATABASE"])
        connections["redis"] = redis.Redis.from_url(os.environ["REDIS_URL"])
    return connections["database"], connections["redis"]


def connect(file):
    database = sqlite3.connect(file, timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


@app.task(name="reprice")
def reprice(first, count):
    database, cache = stores()
    database.execute("BEGIN IMMEDIATE")
    rows = database.execute(
        "SELECT products.product_id, currency, base_price, floor_price, ceiling_price, list_price, revision"
        " FROM products JOIN prices USING (product_id) WHERE products.product_id >= ? ORDER BY 1 LIMIT ?",
        (product_id(first), count),
    ).fetchall()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    prices, changes, pipeline = [], [], cache.pipeline(transaction=False)
    for identifier, currency, base, floor, ceiling, old, revision in rows:
        moved = Decimal(base) * RAISE
        price = min(max(moved, Decimal(floor)), Decimal(ceiling)).quantize(CENT, ROUND_HALF_EVEN)
        explanation = json.dumps(
            {"base_price": base, "rule": "raise", "after": str(moved), "floor": floor, "ceiling": ceiling, "price": str(price)}
        )
        prices.append((str(price), revision + 1, now, explanation, identifier))
        changes.append((identifier, revision + 1, old, str(price), currency, now))
        entry = {"list_price": str(price), "base_price": base, "lowest": floor, "highest": ceiling, "currency": currency, "revision": revision + 1}
        pipeline.set(f"peer:{identifier}", json.dumps(entry), ex=3600)
    database.executemany("UPDATE prices SET list_price = ?, revision = ?, priced_at = ?, explanation = ? WHERE product_id = ?", prices)
    database.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", changes)
    database.execute("COMMIT")
    pipeline.execute()
    return len(rows)


def product_id(number):
    return f"SKU-{number:07}"


def fill(file, count):
    database = connect(file)
    database.executescript(
        """
        CREATE TABLE products (product_id TEXT PRIMARY KEY, currency TEXT, base_price TEXT, floor_price TEXT, ceiling_price TEXT) WITHOUT ROWID;
        CREATE TABLE prices (product_id TEXT PRIMARY KEY, list_price TEXT, revision INTEGER, priced_at TEXT, explanation TEXT);
        CREATE TABLE changes (product_id TEXT, revision INTEGER, old TEXT, new TEXT, currency TEXT, changed_at TEXT, PRIMARY KEY (product_id, revision)) WITHOUT ROWID;
        """
    )
    amounts = [Decimal(200 + number * 7_919 % 50_000) / 100 for number in range(count)]
    products = [(product_id(n), "USD", str(a), str(a * 7 / 10), str(a * 2)) for n, a in enumerate(amounts)]
    database.execute("BEGIN")
    database.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?)", products)
    database.executemany("INSERT INTO prices VALUES (?, ?, 1, '', '{}')", [(row[0], row[2]) for row in products])
    database.execute("COMMIT")
    database.close()


def main():
    url, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "peer.db")
        fill(file, count)
        environment = {**os.environ, "REDIS_URL": url, "DATABASE": file}
        app.conf.update(broker_url=url, result_backend=url)
        arguments = ["worker", "--concurrency", str(WORKERS), "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_reprice", *arguments],
            env=environment,
            cwd=os.path.dirname(os.path.abspath(__file__)),
            stdout=subprocess.DEVNULL,
        )
        try:
            # Both processes have opened their stores before the clock starts.
            warm = [reprice.delay(count, 0) for _ in range(WORKERS * 4)]
            for task in warm:
                task.get(timeout=60)
            began = time.monotonic()
            tasks = [reprice.delay(first, BATCH) for first in range(0, count, BATCH)]
            done = sum(task.get(timeout=600) for task in tasks)
            took_s = time.monotonic() - began
        finally:
            worker.terminate()
            worker.wait()
    if done != count:
        sys.exit(f"{done} products were re-priced")
    print(f"{took_s:.3f}")


if __name__ == "__main__":
    main()
