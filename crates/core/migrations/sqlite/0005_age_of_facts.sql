-- Of two who say what a product costs, the later one counts; and facts end.

-- When the seller last said what the product costs. Rows from before this column said it when they were last written.
ALTER TABLE products ADD COLUMN cost_stated_at TEXT;
UPDATE products SET cost_stated_at = updated_at WHERE unit_cost IS NOT NULL;

-- What a competitor's price is in, if that was said; otherwise it is in the product's currency.
ALTER TABLE signals ADD COLUMN currency TEXT;
-- From this instant on the fact is not known any more; absent: it stays. That of a withdrawn one is when it was withdrawn.
ALTER TABLE signals ADD COLUMN expires_at TEXT;
-- The source of the event that said so; absent: not known, from before this column.
ALTER TABLE signals ADD COLUMN event_source TEXT;

-- What is not taken up any more about a product, however late it arrives. One row for each product that was ever removed or
-- has changed its currency.
CREATE TABLE forgotten_facts (
    product_id    TEXT PRIMARY KEY,
    facts_until   TEXT, -- it was removed then: facts of that instant and before are dropped
    amounts_until TEXT, -- its currency changed then: amounts of no stated currency, of that instant and before, are dropped
    currency      TEXT NOT NULL -- the one it had last
) STRICT, WITHOUT ROWID;

-- Tells whether an explanation says anything else than another one of the same price; absent: not known.
ALTER TABLE prices ADD COLUMN explanation_digest INTEGER;
