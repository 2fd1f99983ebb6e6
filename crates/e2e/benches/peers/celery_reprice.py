"""The worker that somebody would write instead: Celery, prices re-made in bulk.

It does the same work as the engine, on the engine's tables and with the engine's script for Redis: reads products,
signals and the prices in effect; applies the two rules and the guardrails of `bulk/policy.yaml`; writes prices with a
full explanation, and their history; puts entries into Redis over older ones only, and tells of the changes. A task has a
thousand products: one SELECT for each table, exact decimals, executemany in one transaction, one call of the script.

    python celery_reprice.py REDIS_URL PRODUCTS     starts two workers, re-prices PRODUCTS products, prints the seconds
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import celery
import orjson
import redis

BATCH = 1_000
WORKERS = 2
CHANGES_PER_NOTICE = 100
NOTICES_KEPT = 5_000
ENTRY_TTL_MS = 3_600_000
CORE = Path(__file__).resolve().parents[3] / "core"

FIRST_POLICY = 1
RAISING_POLICY = 2
CENT = Decimal("0.01")
RAISE = Decimal("1.03")
MATCH_OFFSET = Decimal("-0.01")
MIN_STOCK = Decimal(20)
MARGIN = 1 - Decimal("0.10")
STEP = Decimal("0.15")
DAILY_MOVE = Decimal("0.30")

WRITE_PRICE = """
    INSERT INTO prices (product_id, revision, category, currency, base_price, list_price, lowest, highest,
                        policy_version, opening_price, opened_on, changed_at, priced_at, explanation)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (product_id) DO UPDATE SET
        revision = excluded.revision, category = excluded.category, currency = excluded.currency,
        base_price = excluded.base_price, list_price = excluded.list_price, lowest = excluded.lowest,
        highest = excluded.highest, policy_version = excluded.policy_version, opening_price = excluded.opening_price,
        opened_on = excluded.opened_on, changed_at = excluded.changed_at, priced_at = excluded.priced_at,
        explanation = excluded.explanation
    WHERE excluded.revision > prices.revision"""
WRITE_CHANGE = "INSERT INTO price_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = """
    SELECT product_id, name, products.category, brand, products.currency, products.base_price, unit_cost, floor_price,
           ceiling_price, attributes, list_price, opening_price, opened_on, changed_at
    FROM products LEFT JOIN prices USING (product_id)
    WHERE product_id >= ? ORDER BY product_id LIMIT ?"""

app = celery.Celery("celery_reprice", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.worker_prefetch_multiplier = 1
stores = {}


def connected():
    """One connection to each store for each process."""
    if not stores:
        cache = redis.Redis.from_url(os.environ["REDIS_URL"])
        stores["database"] = connect(os.environ["DATABASE"])
        stores["put_and_publish"] = cache.register_script((CORE / "src/cache/put_and_publish.lua").read_text())
    return stores["database"], stores["put_and_publish"]


def connect(file):
    database = sqlite3.connect(file, timeout=60, isolation_level=None)
    database.execute("PRAGMA page_size = 8192")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA cache_size = -16384")
    database.execute("PRAGMA wal_autocheckpoint = 4000")
    return database


@app.task(name="reprice")
def reprice(first, count, policy_version, cause):
    database, put_and_publish = connected()
    database.execute("BEGIN IMMEDIATE")
    rows = database.execute(SELECT, (product_id(first), count)).fetchall()
    signals = signals_of(database, rows)
    draw = "UPDATE price_revisions SET last_revision = last_revision + ? RETURNING last_revision"
    revision = database.execute(draw, (len(rows),)).fetchone()[0] - len(rows)
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    prices, changes, keys, entries, notices = [], [], [], [], []
    for row in rows:
        revision += 1
        write, change, entry, notice = price(row, signals, revision, policy_version, cause, now)
        prices.append(write)
        if change:
            changes.append(change)
        keys.append(f"peer:price:{row[0]}")
        entries += (b"%020d" % revision + entry, ENTRY_TTL_MS)
        notices.append(notice)
    database.executemany(WRITE_PRICE, prices)
    database.executemany(WRITE_CHANGE, changes)
    database.execute("COMMIT")
    if keys:
        told = ["peer:price_changes", NOTICES_KEPT, "notice"]
        for start in range(0, len(notices), CHANGES_PER_NOTICE):
            notice = {"catalogue": "peer", "changes": notices[start : start + CHANGES_PER_NOTICE]}
            told += (orjson.dumps(notice), "[]")
        put_and_publish([*keys, "peer:price_changes:log"], ["insert", len(keys), "09" + "0" * 18, *entries, *told])
    return len(rows)


def signals_of(database, rows):
    """What is known of the products and their categories, by subject."""
    if not rows:
        return {}
    found = database.execute(
        "SELECT subject_kind, subject, kind, source, value, in_stock, observed_at FROM signals"
        " WHERE subject_kind = 'product' AND subject BETWEEN ? AND ? OR subject_kind = 'category'",
        (rows[0][0], rows[-1][0]),
    )
    signals = {}
    for kind_of_subject, subject, *signal in found:
        signals.setdefault((kind_of_subject, subject), []).append(signal)
    return signals


def price(row, signals, revision, policy_version, cause, now):
    """A product's price: its row, its change, its entry in Redis and what others are told."""
    identifier, name, category, brand, currency, base, cost, floor, ceiling, attributes, *previous = row
    old_text, opening_text, opened_on, changed_at = previous
    known = signals.get(("category", category), []) + signals.get(("product", identifier), [])
    competitors = {source: Decimal(value) for kind, source, value, *_ in known if kind == "competitor_price"}
    facts = {kind: Decimal(value) for kind, source, value, *_ in known if kind != "competitor_price"}
    start = before = Decimal(base)
    cheapest = min(competitors.values(), default=None)
    stock = facts.get("stock_level")
    matched = cheapest is not None and (100 if stock is None else stock) > MIN_STOCK
    after = cheapest + MATCH_OFFSET if matched else before
    steps = [
        {"step": "start", "after": start},
        {
            "step": "rule", "rule": "match-cheapest-competitor",
            "when": "competitor.min != null and (stock.level ?? 100) > 20", "action": "match competitor.min -0.01",
            "inputs": {"competitor.min": cheapest, "stock.level": stock},
            "applied": matched, "before": before, "after": after,
        },
    ]
    if policy_version == RAISING_POLICY:
        before, after = after, after * RAISE
        steps.append({"step": "rule", "rule": "raise", "action": "adjust +3%", "inputs": {}, "applied": True, "before": before, "after": after})
    today = now[:10]
    opening_text = (opening_text if opened_on == today else old_text) if old_text else None
    lowest, highest, guarded = guard(after, facts.get("unit_cost", cost), floor, ceiling, old_text, opening_text, steps)
    rounded = guarded.quantize(CENT, ROUND_HALF_EVEN)
    if rounded != guarded:
        steps.append({"step": "rounding", "mode": "half_even", "before": guarded, "after": rounded})
    list_price = str(rounded)
    explanation = orjson.dumps(
        {
            "policy_version": policy_version, "priced_at": now, "outcome": "priced",
            "facts": {
                "product": {
                    "product_id": identifier, "name": name, "category": category, "brand": brand, "currency": currency,
                    "base_price": base, "unit_cost": cost, "floor_price": floor, "ceiling_price": ceiling,
                    "attributes": orjson.loads(attributes),
                },
                "signals": {
                    "competitor_prices": [
                        {"competitor": source, "price": value, "in_stock": in_stock, "observed_at": observed_at}
                        for kind, source, value, in_stock, observed_at in known if kind == "competitor_price"
                    ],
                    "demand_index": facts.get("demand_index"), "stock_level": stock, "unit_cost": facts.get("unit_cost"),
                },
                "previous": {"list_price": old_text, "opening_price": opening_text, "changed_at": changed_at},
            },
            "steps": steps,
        },
        default=str,
    )
    lowest, highest = (str(lowest) if lowest is not None else None), (str(highest) if highest is not None else None)
    write = (
        identifier, revision, category, currency, base, list_price, lowest, highest, policy_version,
        opening_text or list_price, today, now, now, explanation.decode(),
    )
    change = (identifier, revision, old_text, list_price, currency, policy_version, cause, now) if list_price != old_text else None
    entry = orjson.dumps(
        {
            "product_id": identifier, "category": category, "currency": currency, "base_price": base,
            "list_price": list_price, "lowest": lowest, "highest": highest, "policy_version": policy_version,
            "revision": revision, "valid_until": None,
        }
    )
    notice = {"product_id": identifier, "revision": revision}
    if change:
        notice["change"] = {
            "old_list_price": old_text, "new_list_price": list_price, "currency": currency,
            "policy_version": policy_version, "cause": cause, "changed_at": now,
        }
    return write, change, entry, notice


def guard(price, cost, floor, ceiling, old_text, opening_text, steps):
    """The price within its guardrails, and what shoppers' prices may be."""
    floors, ceilings = [], []
    if cost:
        floors.append(("min_margin", (Decimal(cost) / MARGIN).quantize(CENT, "ROUND_CEILING")))
    if floor:
        floors.append(("floor", Decimal(floor)))
    if ceiling:
        ceilings.append(("ceiling", Decimal(ceiling)))
    lowest = max((limit for _, limit in floors), default=None)
    highest = min((limit for _, limit in ceilings), default=None)
    for name, known, most in (("max_step", old_text, STEP), ("max_daily_move", opening_text, DAILY_MOVE)):
        if known:
            known = Decimal(known)
            ceilings.insert(0, (name, known + known * most))
            floors.insert(0, (name, known - known * most))
    for limits, bounded in ((ceilings, min), (floors, max)):
        for name, limit in limits:
            within = bounded(price, limit)
            if within != price:
                steps.append({"step": "guardrail", "guardrail": name, "before": price, "after": within})
                price = within
    return lowest, highest, price


def product_id(number):
    return f"SKU-{number:07}"


def amount(cents):
    return f"{cents // 100}.{cents % 100:02}"


def fill(file, count):
    """The engine's tables with the products of `bulk/products.rs`."""
    database = connect(file)
    for migration in sorted((CORE / "migrations/sqlite").glob("*.sql")):
        database.executescript(migration.read_text())
    products = []
    for number in range(count):
        cents = 200 + number * 7_919 % 50_000
        limits = (amount(cents * 6 // 10), amount(cents * 7 // 10), amount(cents * 2))
        names = (product_id(number), f"Product {number}", f"category-{number % 200}", f"brand-{number % 37}", "USD")
        products.append((*names, amount(cents), *limits, "{}", "2026-01-01T00:00:00.000000Z", None))
    database.execute("BEGIN")
    database.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", products)
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
            # The first prices; both processes have opened their stores before the clock starts.
            reprice_all(count, FIRST_POLICY)
            took_s = reprice_all(count, RAISING_POLICY)
        finally:
            worker.terminate()
            worker.wait()
        check(file, count)
    print(f"{took_s:.3f}")


def reprice_all(count, policy_version):
    began = time.monotonic()
    tasks = [reprice.delay(first, BATCH, policy_version, f"recalculation {policy_version}") for first in range(0, count, BATCH)]
    done = sum(task.get(timeout=600) for task in tasks)
    if done != count:
        sys.exit(f"{done} products were re-priced")
    return time.monotonic() - began


def check(file, count):
    """Every product has its second price, and a change in the history for it."""
    database = connect(file)
    for table in ("prices", "price_changes"):
        (written,) = database.execute(f"SELECT count(*) FROM {table} WHERE policy_version = ?", (RAISING_POLICY,)).fetchone()
        if written != count:
            sys.exit(f"{written} rows of {table} are of the second policy")
    database.close()


if __name__ == "__main__":
    main()
