#!/usr/bin/env python3
"""Checks the stack that docker-compose.yml starts, from the outside, and prints what it saw.

    .ci/compose_check.py COMPOSE...     for instance: .ci/compose_check.py docker compose -p pricing-check

The stack is up and healthy when this begins, with two APIs on the ports 8000 to 8009, and down when it ends. Exit code 1
if anything is not as promised. Only what Python brings is used, and Locust where LOCUST names its program.
"""

import concurrent.futures
import datetime
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time

COMPOSE = sys.argv[1:] or ["docker", "compose"]
API_PORTS = range(8000, 8010)
JAEGER_PORT = 16686
PROMETHEUS_PORT = 9090
PATIENCE_S = 60
STOP_LIMIT_S = 15
IMAGE_LIMIT_MB = 150
LOCUST_S = 20
EVENTS_PER_SECOND = 100
# They are killed one after another while events and reads go on.
VICTIMS = ["api", "worker", "listener", "redis", "postgres", "jaeger"]
SERVICES = ["pricing-api", "pricing-listener", "pricing-worker"]
PRODUCTS = [f"P-{number}" for number in range(100, 1000)]


class Unexpected(Exception):
    """Something is not as promised."""


# --- asking ---------------------------------------------------------------------------------------


def request(port, method, path, body=None, timeout=5):
    """The status and the body of an answer, read as JSON where it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        written = None if body is None else json.dumps(body)
        connection.request(method, path, written, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text
    finally:
        connection.close()


def api_ports():
    """The ports on which an API answers."""
    return [port for port in API_PORTS if answers(port)]


def answers(port):
    try:
        return request(port, "GET", "/healthz", timeout=1)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask_any(method, path, body=None):
    """The first good answer of any API, as a load balancer with retries would give it."""
    problem = None
    for _ in range(40):
        for port in API_PORTS:
            try:
                status, answer = request(port, method, path, body)
            except (OSError, http.client.HTTPException) as error:
                problem = error
                continue
            if status < 500:
                return status, answer
            problem = (status, answer)
        time.sleep(0.05)
    raise Unexpected(f"nobody answers {method} {path}: {problem}")


def ask_price(product_id):
    status, answer = ask_any("POST", "/api/v1/price", {"product_id": product_id, "user_location": "NY"})
    if status != 200:
        raise Unexpected(f"the price of {product_id}: {status} {answer}")
    return answer


def publish(event_id, product_id, price):
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/compose-check",
        "type": "pricing.competitor_price.v1",
        "data": {"product_id": product_id, "competitor": "acme", "price": price},
    }
    return ask_any("POST", "/api/v1/publish-market-event", event)


def eventually(what, check, patience_s=PATIENCE_S):
    """Asks again until it is so; what it was asked for, and how long that took."""
    began = time.monotonic()
    while True:
        try:
            found = check()
            if found:
                return found, time.monotonic() - began
            problem = found
        except (Unexpected, OSError, http.client.HTTPException, KeyError, TypeError) as error:
            problem = error
        if time.monotonic() - began > patience_s:
            raise Unexpected(f"{what}: not within {patience_s} s; last: {problem}")
        time.sleep(0.1)


# --- containers -----------------------------------------------------------------------------------


def compose(*arguments):
    done = subprocess.run([*COMPOSE, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unexpected(f"{' '.join([*COMPOSE, *arguments])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def containers(service):
    return compose("ps", "-q", service).split()


def inspect(container, template):
    shown = subprocess.run(
        ["docker", "inspect", "-f", template, container], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip()


def is_healthy(container):
    return inspect(container, "{{.State.Health.Status}}") == "healthy"


def all_healthy():
    services = compose("ps", "--services").split()
    found = [container for service in services for container in containers(service)]
    return all(is_healthy(container) for container in found) and len(found)


def kill_9(service):
    """Ends a container's process from outside; how long until the restart policy has brought it back in good health."""
    container = containers(service)[0]
    restarts = int(inspect(container, "{{.RestartCount}}"))
    os.kill(int(inspect(container, "{{.State.Pid}}")), signal.SIGKILL)

    def is_back():
        return int(inspect(container, "{{.RestartCount}}")) > restarts and is_healthy(container)

    return eventually(f"{service} is healthy again", is_back)[1]


# --- what is checked ------------------------------------------------------------------------------


def started():
    count, _ = eventually("every container is healthy", all_healthy)
    image = inspect(containers("api")[0], "{{.Image}}")
    size_mb = int(inspect(image, "{{.Size}}")) / 1e6
    if size_mb > IMAGE_LIMIT_MB:
        raise Unexpected(f"the image has {size_mb:.0f} MB")
    return (
        f"{count} containers are healthy, the last of them {healthy_after_s():.1f} s after the first was started; "
        f"the image has {size_mb:.0f} MB"
    )


def healthy_after_s():
    found = [container for service in compose("ps", "--services").split() for container in containers(service)]
    started = [instant(inspect(container, "{{.State.StartedAt}}")) for container in found]
    healthy = []
    for container in found:
        checks = json.loads(inspect(container, "{{json .State.Health.Log}}"))
        healthy.append(min(instant(check["End"]) for check in checks if check["ExitCode"] == 0))
    return (max(healthy) - min(started)).total_seconds()


def instant(written):
    """Docker writes nanoseconds, Python reads microseconds."""
    return datetime.datetime.fromisoformat(written[:26].rstrip("Z") + "+00:00")


def miss_then_hit():
    first, second = ask_price("P-100"), ask_price("P-100")
    if (first["source"], second["source"]) != ("database", "cache"):
        raise Unexpected(f"first from {first['source']}, then from {second['source']}")
    return f"P-100 costs {first['final_price']}, from the database; asked again, from the cache"


def one_trace():
    before = ask_price("P-101")
    began = time.monotonic()
    status, answer = publish(secrets.token_hex(8), "P-101", round(before["base_price"] * 0.93, 2))
    if status != 200:
        raise Unexpected(f"publishing: {status} {answer}")
    changed = lambda: ask_price("P-101")["revision"] > before["revision"]
    eventually("the new price", changed)
    visible_ms = (time.monotonic() - began) * 1000

    (trace_id, spans), _ = eventually("the trace", traced_event)
    return f"an event was a new price after {visible_ms:.0f} ms; trace {trace_id} has {spans} spans, of {', '.join(SERVICES)}"


def traced_event():
    """A trace of an event that all three services had a part in, found by search and read by its identifier."""
    _, found = request(JAEGER_PORT, "GET", "/api/traces?service=pricing-api&limit=100")
    for candidate in found["data"]:
        _, answer = request(JAEGER_PORT, "GET", f"/api/traces/{candidate['traceID']}")
        if not isinstance(answer, dict):
            # Found, but not yet complete.
            continue
        trace = answer["data"][0]
        names = {process["serviceName"] for process in trace["processes"].values()}
        operations = {span["operationName"] for span in trace["spans"]}
        if names == set(SERVICES) and "POST /api/v1/publish-market-event" in operations:
            return trace["traceID"], len(trace["spans"])
    return None


def one_run_at_a_time():
    tasks = [ask_any("POST", "/api/v1/recalculations", {})[1]["task_id"] for _ in range(3)]

    def ended():
        states = [ask_any("GET", f"/api/v1/recalculations/{task}")[1]["state"] for task in tasks]
        return all(state in ("done", "skipped") for state in states) and states

    states, took_s = eventually("the recalculations", ended)
    return f"three requests at once, {took_s:.1f} s later: {', '.join(states)}"


def scraped():
    compose("--profile", "observability", "up", "-d", "--wait", "--no-recreate", "prometheus")

    def up():
        _, found = request(PROMETHEUS_PORT, "GET", "/api/v1/query?query=sum%20by%20(job)%20(up)")
        targets = {one["metric"]["job"]: int(one["value"][1]) for one in found["data"]["result"]}
        return len(targets) == 3 and min(targets.values()) > 0 and targets

    targets, _ = eventually("Prometheus has scraped every service", up)
    return "Prometheus scrapes " + ", ".join(f"{count} {job}" for job, count in sorted(targets.items()))


def load():
    locust = os.environ.get("LOCUST")
    if not locust:
        raise Unexpected("LOCUST names no program")
    port = api_ports()[0]
    arguments = ["--headless", "-u", "200", "-r", "50", "-t", f"{LOCUST_S}s", "--only-summary"]
    done = subprocess.run(
        [locust, "-f", "locust/locustfile.py", "--host", f"http://127.0.0.1:{port}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = [line for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))]
    if done.returncode != 0 or not verdict:
        raise Unexpected(f"locust: {verdict} {done.stderr[-2000:]}")
    return f"Locust, 200 users, {LOCUST_S} s: {verdict[0]}"


class Load:
    """Events and reads that go on until they are told to stop."""

    def __init__(self):
        self.stop = threading.Event()
        self.acknowledged = {}
        self.published = self.refused = self.reads = 0
        self.slowest_read_s = 0.0
        self.problems = []

    def publish_all(self):
        while not self.stop.is_set():
            number = self.published
            product_id = PRODUCTS[number % len(PRODUCTS)]
            try:
                status, _ = publish(f"killed-{number}", product_id, price_of(number))
            except Unexpected:
                # While Redis is away, nothing is acknowledged.
                status = None
            if status == 200:
                self.acknowledged[product_id] = number
            else:
                self.refused += 1
            self.published += 1
            self.stop.wait(1 / EVENTS_PER_SECOND)

    def read_all(self):
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                ask_price(PRODUCTS[self.reads % len(PRODUCTS)])
            except Unexpected as problem:
                self.problems.append(str(problem))
                return
            self.slowest_read_s = max(self.slowest_read_s, time.monotonic() - began)
            self.reads += 1


def price_of(number):
    """A price that says which event brought it."""
    return round(1000 + number / 100, 2)


def known_prices():
    """What the engine knows of the competitor, by product: the stored facts themselves, as a price's explanation stays
    that of its last change."""
    query = "select subject, value from signals where subject_kind = 'product' and kind = 'competitor_price'"
    rows = compose("exec", "-T", "postgres", "psql", "-U", "pricing", "-Atc", f"{query} and source = 'acme'")
    return {product: float(price) for product, price in (row.split("|") for row in rows.splitlines())}


def killed_one_after_another():
    work = Load()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(work.publish_all), pool.submit(work.read_all)]
        recovered = []
        try:
            for service in VICTIMS:
                time.sleep(1)
                recovered.append(f"{service} {kill_9(service):.0f} s")
        finally:
            work.stop.set()
        for one in running:
            one.result()
    if work.problems:
        raise Unexpected("; ".join(work.problems))
    eventually("every acknowledged event is applied", lambda: not lost(work))
    return (
        f"kill -9 during load; healthy again after: {', '.join(recovered)}. {work.published - work.refused} events "
        f"acknowledged, {work.refused} refused, none lost; {work.reads} reads answered, the slowest after "
        f"{work.slowest_read_s:.2f} s"
    )


def lost(work):
    """Products whose last acknowledged event, or a later one, is not what the engine knows."""
    known = known_prices()
    return [product for product, number in work.acknowledged.items() if known.get(product, 0) < price_of(number)]


def scaled():
    compose("up", "-d", "--wait", "--no-recreate", "--scale", "worker=3", "--scale", "listener=2", "--scale", "api=2")
    counts = {service: len(containers(service)) for service in ("api", "worker", "listener")}
    if counts != {"api": 2, "worker": 3, "listener": 2}:
        raise Unexpected(f"scaled to {counts}")
    before = ask_price("P-103")
    publish(secrets.token_hex(8), "P-103", round(before["base_price"] * 0.95, 2))
    eventually("a price through them", lambda: ask_price("P-103")["revision"] > before["revision"])
    return ", ".join(f"{count} {service}" for service, count in counts.items()) + "; an event went through them"


def stopped():
    publish("last", "P-104", 4321.09)
    began = time.monotonic()
    compose("stop", "api", "worker", "listener")
    took_s = time.monotonic() - began
    if took_s > STOP_LIMIT_S:
        raise Unexpected(f"stopping took {took_s:.1f} s")
    compose("start", "api", "worker", "listener")
    eventually("the last event is applied", lambda: known_prices().get("P-104") == 4321.09)
    return f"api, worker and listener stopped in {took_s:.1f} s; an event acknowledged just before was applied after the start"


def backed_up():
    """An event after the backup is forgotten by the restored stack, one before it is not, and the next one is applied.
    A backup that is cut off changes nothing."""

    def learn(event, price):
        publish(f"backup-{event}", "P-105", price)
        eventually(f"{event} is applied", lambda: known_prices().get("P-105") == price)

    learn("before", 1111.11)
    with tempfile.TemporaryDirectory() as directory:
        run_backup("save", directory)
        sizes = {name: os.path.getsize(os.path.join(directory, name)) for name in sorted(os.listdir(directory))}
        learn("after", 2222.22)
        for cut_off in sizes:
            refused_in_half(cut_off, directory)
        if known_prices().get("P-105") != 2222.22:
            raise Unexpected("a backup that is cut off was restored")
        began = time.monotonic()
        run_backup("restore", directory)
        took_s = time.monotonic() - began
    eventually("what was saved is back", lambda: known_prices().get("P-105") == 1111.11)
    learn("restored", 3333.33)
    shown = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    return (
        f"saved {shown}; cut off, neither was restored; restored in {took_s:.1f} s, and the next event was applied"
    )


def refused_in_half(cut_off, directory):
    """Half of a backup's file is refused, and every service goes on."""
    with tempfile.TemporaryDirectory() as half:
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), "rb") as whole:
                content = whole.read()
            with open(os.path.join(half, name), "wb") as copy:
                copy.write(content[: len(content) // 2] if name == cut_off else content)
        try:
            run_backup("restore", half)
        except Unexpected:
            pass
        else:
            raise Unexpected(f"half of {cut_off} was restored")
    if not all_healthy():
        raise Unexpected(f"half of {cut_off} has stopped a service")


def run_backup(*arguments):
    done = subprocess.run(
        ["deploy/compose-backup", *arguments, *COMPOSE], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unexpected(f"deploy/compose-backup {arguments[0]}: {done.stderr.strip()[-2000:]}")


CHECKS = [
    ("one command starts every service", started),
    ("a price is read from the database, then from the cache", miss_then_hit),
    ("an event changes a price, and one trace shows how", one_trace),
    ("metrics of every service are collected", scraped),
    ("recalculations do not run beside each other", one_run_at_a_time),
    ("services scale", scaled),
    ("it bears load", load),
    ("it heals itself", killed_one_after_another),
    ("it stops in time and loses nothing", stopped),
    ("it is saved and restored", backed_up),
]


def main():
    failed = 0
    for number, (promise, check) in enumerate(CHECKS, 1):
        began = time.monotonic()
        try:
            mark, evidence = "ok", check()
        except (Unexpected, OSError, subprocess.CalledProcessError) as problem:
            failed += 1
            mark, evidence = "FAILED", str(problem)
        print(f"{number}. {promise}: {mark} ({time.monotonic() - began:.1f} s)\n     {evidence}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
