-- The facts of the engine.
--
-- Amounts are NUMERIC without a fixed scale, which keeps the digits as written: 49.90 stays 49.90. Product
-- identifiers collate as bytes, so that their order is the same in every database and every locale.

CREATE TABLE products (
    product_id    TEXT COLLATE "C" PRIMARY KEY,
    name          TEXT NOT NULL,
    category      TEXT,
    brand         TEXT,
    currency      TEXT NOT NULL,
    base_price    NUMERIC NOT NULL,
    unit_cost     NUMERIC,
    floor_price   NUMERIC,
    ceiling_price NUMERIC,
    attributes    JSONB NOT NULL, -- an object of texts
    updated_at    TIMESTAMPTZ NOT NULL
);

CREATE TABLE signals (
    subject_kind TEXT COLLATE "C" NOT NULL, -- product, category or location
    subject      TEXT COLLATE "C" NOT NULL,
    kind         TEXT COLLATE "C" NOT NULL,
    source       TEXT COLLATE "C" NOT NULL, -- empty where there is only one
    value        NUMERIC NOT NULL,
    observed_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (subject_kind, subject, kind, source)
);

CREATE TABLE policies (
    version      BIGINT PRIMARY KEY,
    name         TEXT NOT NULL,
    source       TEXT NOT NULL,
    author       TEXT NOT NULL,
    note         TEXT NOT NULL,
    published_at TIMESTAMPTZ NOT NULL
);

-- The price in effect, ready to be served, and why.
CREATE TABLE prices (
    product_id     TEXT COLLATE "C" PRIMARY KEY REFERENCES products (product_id) ON DELETE CASCADE,
    revision       BIGINT NOT NULL,
    category       TEXT,
    currency       TEXT NOT NULL,
    base_price     NUMERIC NOT NULL,
    list_price     NUMERIC NOT NULL,
    lowest         NUMERIC,
    highest        NUMERIC,
    policy_version BIGINT NOT NULL,
    valid_until    TIMESTAMPTZ,
    opening_price  NUMERIC NOT NULL,
    opened_on      DATE NOT NULL,
    priced_at      TIMESTAMPTZ NOT NULL,
    -- JSON, but as TEXT: a replay is compared with it byte for byte, and JSONB keeps neither the order of the
    -- fields nor the white space.
    explanation    TEXT NOT NULL
);

-- What list prices were. Rows are only ever added, and stay when their product goes.
CREATE TABLE price_changes (
    product_id     TEXT COLLATE "C" NOT NULL,
    revision       BIGINT NOT NULL,
    old_list_price NUMERIC, -- absent: the product's first price
    new_list_price NUMERIC, -- absent: the product was removed
    currency       TEXT NOT NULL,
    policy_version BIGINT NOT NULL,
    cause          TEXT NOT NULL,
    changed_at     TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (product_id, revision)
);

CREATE FUNCTION refuse_to_change_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'price_changes is append-only';
END
$$;

CREATE TRIGGER price_changes_are_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON price_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_history();

-- Events whose facts are in signals; recorded in the transaction that wrote them, so a redelivery is recognised.
-- Event identifiers are unique only within their source.
CREATE TABLE applied_events (
    source     TEXT COLLATE "C" NOT NULL,
    event_id   TEXT COLLATE "C" NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, event_id)
);

-- Revisions of prices. A sequence never gives a number twice, whatever is rolled back or removed.
CREATE SEQUENCE price_revisions AS BIGINT;

-- Tells this catalogue from every other one. Caches keep prices apart by it, as revisions of two catalogues cannot be
-- compared. Give a catalogue that was restored from a backup a new one: its revisions may have been given out before.
CREATE TABLE catalogue_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    identity TEXT NOT NULL
);

INSERT INTO catalogue_identity (only_row, identity) VALUES (1, substr(md5(random()::text || clock_timestamp()::text), 1, 16));
