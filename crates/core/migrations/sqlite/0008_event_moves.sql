-- The circuit breaker counts what market events move, over all workers, and holds what goes beyond its
-- limit.

-- What events have made of each list price since a count began for it. Rows older than the policy's window
-- do not count. Without a foreign key, which would make every write look up its product: removing a
-- product removes its row.
CREATE TABLE event_moves (
    product_id TEXT NOT NULL PRIMARY KEY,
    -- The list price when the count began, and the one after the last event.
    list_price_before TEXT NOT NULL,
    list_price TEXT NOT NULL,
    -- The distance between the two, in millionths of the first, rounded up: it is compared without fractions.
    distance_millionths INTEGER NOT NULL,
    -- When the count began; of a price that went beyond the limit later, when it did.
    moved_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Counts the moves beyond a limit without reading the others.
CREATE INDEX event_moves_distance ON event_moves (distance_millionths, moved_at);
-- Finds the rows that do not count any more.
CREATE INDEX event_moves_moved_at ON event_moves (moved_at);

-- A price whose move by events is held: since when, why, and who rejected it; absent: nothing is held. It
-- is priced by the facts of its last pricing, which are in its movement.
ALTER TABLE prices ADD COLUMN events_held_since TEXT;
ALTER TABLE prices ADD COLUMN events_held_reason TEXT;
ALTER TABLE prices ADD COLUMN events_rejected_by TEXT;

-- Counts and lists what is held without reading the other prices.
CREATE INDEX prices_events_held ON prices (product_id) WHERE events_held_since IS NOT NULL;
