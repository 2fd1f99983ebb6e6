-- Limits on moves hold back what the market causes; each price knows how far it is on its way to its
-- target.

-- The state of the last pricing that was not frozen: JSON, kept as text, because its decimals are exact.
-- Absent: the price is from before this column, and its explanation says what it was made of.
ALTER TABLE prices ADD COLUMN movement TEXT;

-- What keeps the price from its target: a limit on moves, or frozen; absent: nothing does.
ALTER TABLE prices ADD COLUMN held_by TEXT COLLATE "C";

-- Counts what is held without reading the other prices.
CREATE INDEX prices_held ON prices (held_by) WHERE held_by IS NOT NULL;
