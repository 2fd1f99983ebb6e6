-- What was committed and is not in Redis yet: a row for each transaction that writes or removes prices,
-- inserted by it, and deleted after Redis has accepted the entries. If the process dies in between, others
-- find the row.
CREATE TABLE unserved_prices (
    id TEXT COLLATE "C" PRIMARY KEY,
    -- Orders the rows with the revision: transactions that commit late are not skipped.
    transaction_id BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    -- The revisions that the transaction drew lie between these two.
    first_revision BIGINT NOT NULL,
    last_revision BIGINT NOT NULL,
    product_ids TEXT[] NOT NULL,
    since TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    -- When any process may put the entries into Redis: the transaction's own has not, or not yet.
    due_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX unserved_prices_due_at ON unserved_prices (due_at);
