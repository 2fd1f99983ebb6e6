#!/usr/bin/env python3
"""Writes sample-products.csv, the catalogue that a first start loads.

    data/sample.py            writes the file
    data/sample.py --check    exit code 1 if the committed file differs from what would be written

P-100 ... P-999 are invented retail products. P-1 is the one that the documentation quotes: its base price of 51.99
and nothing that could hold its price back (no cost, floor or ceiling).

Every choice is a digest of the product's id, so the file is the same on every machine and Python version, and
changing one product changes no other. Money is whole cents.
"""

import csv
import hashlib
import io
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent / "sample-products.csv"

COLUMNS = [
    "product_id", "name", "category", "brand", "currency", "base_price", "unit_cost", "floor_price", "ceiling_price",
]

# category: (its brands, what tells variants apart, what is sold: (noun, lowest price, highest price) in
# dollars)
CATEGORIES = {
    "Groceries": (
        ["Millbrook", "Casa Olivar", "Northfield"],
        ["250 g", "500 g", "1 kg", "Organic 500 g", "Family Pack"],
        [("Ground Coffee", 5, 24), ("Basmati Rice", 2, 14), ("Extra Virgin Olive Oil", 7, 32), ("Rolled Oats", 2, 9),
         ("Wildflower Honey", 4, 21), ("Almond Butter", 5, 19), ("Dark Chocolate", 2, 13), ("Penne Rigate", 2, 8)],
    ),
    "Household": (
        ["Clearwater", "Homestead", "Northfield"],
        ["Lemon", "Lavender", "Unscented", "Refill", "Twin Pack"],
        [("Dish Soap", 2, 9), ("Laundry Detergent", 7, 28), ("Surface Cleaner", 3, 11), ("Hand Soap", 2, 12),
         ("Dishwasher Tablets", 8, 27), ("Glass Cleaner", 3, 10), ("Fabric Softener", 4, 15)],
    ),
    "Beauty": (
        ["Lumera", "Saltwater & Sage", "Clearwater"],
        ["30 ml", "50 ml", "100 ml", "Sensitive", "Gift Set"],
        [("Day Cream", 9, 58), ("Vitamin C Serum", 14, 79), ("Shampoo", 4, 26), ("Body Lotion", 6, 32),
         ("Sun Lotion SPF 50", 9, 39), ("Lip Balm", 2, 11), ("Eau de Toilette", 24, 119)],
    ),
    "Apparel": (
        ["Harbour Lane", "Kestrel", "Fieldnote"],
        ["Black", "Navy", "Olive", "Sand", "Grey"],
        [("Cotton T-Shirt", 9, 35), ("Oxford Shirt", 29, 89), ("Slim Jeans", 39, 119), ("Rain Jacket", 59, 199),
         ("Merino Sweater", 49, 149), ("Wool Socks", 7, 22), ("Down Vest", 69, 179), ("Canvas Belt", 15, 45)],
    ),
    "Footwear": (
        ["Kestrel", "Stride Theory", "Harbour Lane"],
        ["Black", "White", "Tan", "Blue", "Wide Fit"],
        [("Running Shoes", 59, 179), ("Leather Boots", 99, 259), ("Canvas Sneakers", 35, 89), ("Sandals", 19, 79),
         ("Hiking Shoes", 79, 199), ("House Slippers", 12, 45)],
    ),
    "Sports": (
        ["Stride Theory", "Summit Supply", "Fieldnote"],
        ["Small", "Medium", "Large", "Pro", "Set of 2"],
        [("Yoga Mat", 15, 79), ("Adjustable Dumbbell", 49, 289), ("Resistance Band", 6, 29), ("Foam Roller", 12, 49),
         ("Water Bottle", 8, 38), ("Two-Person Tent", 89, 399), ("Sleeping Bag", 45, 249), ("Bike Helmet", 29, 139)],
    ),
    "Electronics": (
        ["Voltera", "Nimbus Audio", "Pixelworks"],
        ["Black", "White", "Silver", "Gen 2", "Travel Edition"],
        [("Wireless Earbuds", 29, 199), ("USB-C Charger", 14, 69), ("Mechanical Keyboard", 59, 219),
         ("Noise Cancelling Headphones", 99, 399), ("Webcam", 35, 169), ("Portable SSD 1 TB", 79, 229),
         ("27 in Monitor", 159, 499), ("Bluetooth Speaker", 25, 249)],
    ),
    "Kitchen": (
        ["Homestead", "Copper & Oak", "Voltera"],
        ["Red", "Graphite", "Cream", "Compact", "Large"],
        [("Chef's Knife", 19, 149), ("Cast Iron Skillet", 25, 129), ("Electric Kettle", 24, 119),
         ("Stand Mixer", 149, 449), ("Cutting Board", 12, 69), ("Espresso Machine", 129, 499), ("Storage Jar", 4, 24)],
    ),
    "Furniture": (
        ["Copper & Oak", "Lindqvist Form", "Homestead"],
        ["Oak", "Walnut", "White", "Black", "Natural"],
        [("Bookcase", 59, 299), ("Bedside Table", 39, 189), ("Desk Lamp", 19, 129), ("Dining Chair", 49, 249),
         ("Coffee Table", 79, 399), ("Wall Mirror", 29, 219), ("Office Chair", 99, 459)],
    ),
    "Toys": (
        ["Tinker Tree", "Pocket Planet", "Pixelworks"],
        ["Starter", "Classic", "Deluxe", "Junior", "Travel"],
        [("Wooden Blocks", 12, 59), ("Board Game", 15, 69), ("Jigsaw Puzzle", 8, 35), ("Plush Bear", 9, 49),
         ("Train Set", 25, 159), ("Science Kit", 19, 89), ("Modelling Clay", 3, 19)],
    ),
    "Garden": (
        ["Greenhand", "Summit Supply", "Fieldnote"],
        ["Small", "Medium", "Large", "Heavy Duty", "Set of 3"],
        [("Pruning Shears", 9, 59), ("Watering Can", 8, 45), ("Terracotta Pot", 3, 39), ("Garden Hose", 19, 89),
         ("Raised Bed", 39, 199), ("Work Gloves", 4, 24), ("Potting Soil", 5, 22)],
    ),
    "Pets": (
        ["Wagtail", "Millbrook", "Greenhand"],
        ["Puppy", "Adult", "Senior", "Small Breed", "Value Pack"],
        [("Dry Dog Food", 9, 79), ("Dental Chews", 4, 26), ("Dog Bed", 19, 129), ("Rope Toy", 3, 17),
         ("Leather Leash", 12, 49), ("Grooming Brush", 6, 29)],
    ),
}

LOWEST_CENTS, HIGHEST_CENTS = 199, 49_999


def pick(key: str, count: int) -> int:
    """A number below `count` that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count


def percent_of(cents: int, percent: int) -> int:
    """Rounded to the nearest cent, half up."""
    return (cents * percent + 50) // 100


def amount(cents: int | None) -> str:
    """As it is written in the file: nothing, or dollars with two decimals."""
    return "" if cents is None else f"{cents // 100}.{cents % 100:02}"


def combinations() -> list[tuple[str, str, str, tuple[str, int, int]]]:
    """Every category, brand, variant and noun that goes together, in an order that looks shuffled."""
    everything = [
        (category, brand, variant, noun)
        for category, (brands, variants, nouns) in CATEGORIES.items()
        for brand in brands
        for variant in variants
        for noun in nouns
    ]
    return sorted(everything, key=lambda entry: pick("/".join([*entry[:3], entry[3][0]]), 2**64))


def base_cents(product_id: str, lowest: int, highest: int) -> int:
    """A shelf price: whole dollars less 1, 5 or 51 cents."""
    dollars = lowest + pick(f"{product_id} dollars", highest - lowest + 1)
    ending = [1, 1, 1, 5, 51][pick(f"{product_id} ending", 5)]
    return min(max(dollars * 100 + 100 - ending, LOWEST_CENTS), HIGHEST_CENTS)


def unit_cost_cents(product_id: str, base: int) -> int | None:
    """45 to 80 % of the base price, so that 5 % off twice still leaves a margin of 10 %. One in ten is unknown."""
    if pick(f"{product_id} cost known", 10) == 0:
        return None
    return percent_of(base, 45 + pick(f"{product_id} cost", 36))


def floor_cents(product_id: str, base: int) -> int | None:
    """One in five has a floor, and one in fifty a minimum advertised price, which holds back a discount of 5 %."""
    lot = pick(f"{product_id} floor", 50)
    if lot == 0:
        return percent_of(base, 97)
    if lot <= 10:
        return percent_of(base, 82 + pick(f"{product_id} floor percent", 7))
    return None


def ceiling_cents(product_id: str, base: int) -> int | None:
    """One in four has a ceiling, 10 to 50 % above the base price."""
    if pick(f"{product_id} ceiling", 4) != 0:
        return None
    return percent_of(base, 110 + pick(f"{product_id} ceiling percent", 41))


def products() -> list[list[str]]:
    """The rows of the file, without its header."""
    rows = [["P-1", "Harbour Lane Canvas Weekender Bag", "Apparel", "Harbour Lane", "USD", "51.99", "", "", ""]]
    chosen = combinations()
    for number in range(100, 1000):
        product_id = f"P-{number}"
        category, brand, variant, (noun, lowest, highest) = chosen[number - 100]
        base = base_cents(product_id, lowest, highest)
        rows.append([
            product_id, f"{brand} {noun}, {variant}", category, brand, "USD", amount(base),
            amount(unit_cost_cents(product_id, base)),
            amount(floor_cents(product_id, base)),
            amount(ceiling_cents(product_id, base)),
        ])
    return rows


def main() -> int:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([COLUMNS, *products()])
    content = written.getvalue().encode()

    if sys.argv[1:] == ["--check"]:
        if TARGET.is_file() and TARGET.read_bytes() == content:
            return 0
        print(f"{TARGET} is not what data/sample.py writes: run data/sample.py and commit the file", file=sys.stderr)
        return 1
    if sys.argv[1:]:
        print("usage: data/sample.py [--check]", file=sys.stderr)
        return 64
    TARGET.write_bytes(content)
    print(f"{TARGET.name}: {len(content.splitlines()) - 1} products")
    return 0


if __name__ == "__main__":
    sys.exit(main())
