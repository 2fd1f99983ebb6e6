-- What policies ask about since they know of advertised prices, stock of competitors, pauses and loops.

-- Below this a product may not be advertised.
ALTER TABLE products ADD COLUMN minimum_advertised_price NUMERIC;

-- Whether a competitor has it; absent if nobody said so.
ALTER TABLE signals ADD COLUMN in_stock BOOLEAN;

-- When the list price became what it is; absent: not known, from before this column.
ALTER TABLE prices ADD COLUMN changed_at TIMESTAMPTZ;

-- Changes in one direction because of competitors, below zero if downwards, and when the first of them was.
ALTER TABLE prices ADD COLUMN streak_moves INTEGER;
ALTER TABLE prices ADD COLUMN streak_since TIMESTAMPTZ;
