-- What was committed and is not in Redis yet: a row for each transaction that writes or removes prices,
-- inserted by it, and deleted after Redis has accepted the entries. If the process dies in between, others
-- find the row.
CREATE TABLE unserved_prices (
    id TEXT NOT NULL PRIMARY KEY,
    -- The revisions that the transaction drew lie between these two. With one writer, their order is that of
    -- the commits.
    first_revision INTEGER NOT NULL,
    last_revision INTEGER NOT NULL,
    product_ids TEXT NOT NULL, -- a JSON array of texts
    since TEXT NOT NULL,
    -- When any process may put the entries into Redis: the transaction's own has not, or not yet.
    due_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX unserved_prices_due_at ON unserved_prices (due_at);
