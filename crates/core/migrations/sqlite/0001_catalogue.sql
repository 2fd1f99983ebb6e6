-- The facts of the engine.
--
-- Amounts are TEXT with their decimal digits: SQLite's numbers beyond 64-bit integers are binary floating point,
-- which cannot hold 49.90. Instants are TEXT in UTC with six decimal places (2026-01-31T12:00:00.000000Z), which
-- sorts as time and can be read in a shell. STRICT keeps every column to its type.

CREATE TABLE products (
    product_id    TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    category      TEXT,
    brand         TEXT,
    currency      TEXT NOT NULL,
    base_price    TEXT NOT NULL,
    unit_cost     TEXT,
    floor_price   TEXT,
    ceiling_price TEXT,
    attributes    TEXT NOT NULL, -- a JSON object of texts
    updated_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signals (
    subject_kind TEXT NOT NULL, -- product, category or location
    subject      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    source       TEXT NOT NULL, -- empty where there is only one
    value        TEXT NOT NULL,
    observed_at  TEXT NOT NULL,
    PRIMARY KEY (subject_kind, subject, kind, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
    version      INTEGER PRIMARY KEY,
    name         TEXT NOT NULL,
    source       TEXT NOT NULL,
    author       TEXT NOT NULL,
    note         TEXT NOT NULL,
    published_at TEXT NOT NULL
) STRICT;

-- The price in effect, ready to be served, and why. A row with its explanation is kilobytes, so this table has a
-- rowid: without one, the rows themselves would be the B-tree's keys and leave few to a page.
CREATE TABLE prices (
    product_id     TEXT PRIMARY KEY REFERENCES products (product_id) ON DELETE CASCADE,
    revision       INTEGER NOT NULL,
    category       TEXT,
    currency       TEXT NOT NULL,
    base_price     TEXT NOT NULL,
    list_price     TEXT NOT NULL,
    lowest         TEXT,
    highest        TEXT,
    policy_version INTEGER NOT NULL,
    valid_until    TEXT,
    opening_price  TEXT NOT NULL,
    opened_on      TEXT NOT NULL,
    priced_at      TEXT NOT NULL,
    explanation    TEXT NOT NULL -- JSON, kept byte for byte: a replay is compared with it
) STRICT;

-- What list prices were. Rows are only ever added, and stay when their product goes.
CREATE TABLE price_changes (
    product_id     TEXT NOT NULL,
    revision       INTEGER NOT NULL,
    old_list_price TEXT, -- absent: the product's first price
    new_list_price TEXT, -- absent: the product was removed
    currency       TEXT NOT NULL,
    policy_version INTEGER NOT NULL,
    cause          TEXT NOT NULL,
    changed_at     TEXT NOT NULL,
    PRIMARY KEY (product_id, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER price_changes_are_not_updated BEFORE UPDATE ON price_changes
BEGIN
    SELECT RAISE(ABORT, 'price_changes is append-only');
END;

CREATE TRIGGER price_changes_are_not_deleted BEFORE DELETE ON price_changes
BEGIN
    SELECT RAISE(ABORT, 'price_changes is append-only');
END;

-- Events whose facts are in signals; recorded in the transaction that wrote them, so a redelivery is recognised.
-- Event identifiers are unique only within their source.
CREATE TABLE applied_events (
    source     TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    PRIMARY KEY (source, event_id)
) STRICT, WITHOUT ROWID;

-- The last revision that was given out. It outlives the prices, so that the revision of a removed product is not
-- given to its successor.
CREATE TABLE price_revisions (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    last_revision INTEGER NOT NULL
) STRICT;

INSERT INTO price_revisions (only_row, last_revision) VALUES (1, 0);

-- Tells this catalogue from every other one. Caches keep prices apart by it, as revisions of two catalogues cannot be
-- compared. Give a catalogue that was restored from a backup a new one: its revisions may have been given out before.
CREATE TABLE catalogue_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    identity TEXT NOT NULL
) STRICT;

INSERT INTO catalogue_identity (only_row, identity) VALUES (1, lower(hex(randomblob(8))));
