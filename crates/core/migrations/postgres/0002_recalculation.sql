-- Recalculations: who asked for one, how far it got, and which run may write.

-- One row for each request. It is written before anybody works on it, so a request is not lost with the process that
-- took it, and stays for a while as the answer to "what became of it".
CREATE TABLE recalculation_runs (
    task_id        TEXT COLLATE "C" PRIMARY KEY,
    state          TEXT COLLATE "C" NOT NULL, -- requested, running, done, skipped or failed
    run_number     BIGINT, -- absent until it begins; a run that is begun again has the newer one
    is_follow_up   BOOLEAN NOT NULL, -- asked for on behalf of requests that came while a run was under way
    follow_up      TEXT COLLATE "C", -- the task that does the work of this one, which was skipped
    reason         TEXT, -- why it was skipped or failed
    requested_at   TIMESTAMPTZ NOT NULL,
    started_at     TIMESTAMPTZ,
    finished_at    TIMESTAMPTZ,
    policy_version BIGINT,
    products_total BIGINT, -- how many there were when it began
    -- Nothing until it is finished: then what its ranges add up to, as their rows go.
    products_done  BIGINT NOT NULL DEFAULT 0,
    prices_changed BIGINT NOT NULL DEFAULT 0,
    prices_frozen  BIGINT NOT NULL DEFAULT 0,
    workers        JSONB NOT NULL DEFAULT '{}', -- the number of ranges of each worker
    scope          JSONB NOT NULL -- which products
);

-- Finds what waits and what is running, the oldest request first.
CREATE INDEX recalculation_runs_by_state ON recalculation_runs (state, requested_at);

-- Ranges know their run by its number. Two runs with one number would be counted together.
CREATE UNIQUE INDEX recalculation_runs_by_number ON recalculation_runs (run_number);

-- Finds what is old enough to be forgotten.
CREATE INDEX recalculation_runs_by_end ON recalculation_runs (finished_at) WHERE finished_at IS NOT NULL;

-- The parts of a run that are finished, written in the transaction that wrote their prices: a part that is done twice
-- counts once. Only of runs under way.
CREATE TABLE recalculation_ranges (
    run_number  BIGINT NOT NULL,
    range_start TEXT COLLATE "C" NOT NULL,
    worker      TEXT NOT NULL,
    products    BIGINT NOT NULL,
    changed     BIGINT NOT NULL,
    frozen      BIGINT NOT NULL,
    finished_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (run_number, range_start)
);

-- The fence: the number of the newest run. Whoever prices a range shares the lock of this row, so a newer run begins
-- after the last transaction of the older one, and the older one can begin no other.
CREATE TABLE current_run (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    run_number BIGINT NOT NULL
);

INSERT INTO current_run (only_row, run_number) VALUES (1, 0);

-- Finds the prices whose time is over without looking at the others, most of which have no end.
CREATE INDEX prices_by_expiry ON prices (valid_until, product_id) WHERE valid_until IS NOT NULL;

-- Finds the events that are old enough to be forgotten.
CREATE INDEX applied_events_by_age ON applied_events (applied_at);

-- A category is read in pages, in the order of its products.
CREATE INDEX products_by_category ON products (category, product_id);
