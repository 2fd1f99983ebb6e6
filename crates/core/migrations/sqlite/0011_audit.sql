-- Who changed what: an entry for each change that a caller makes, in the transaction of the change.
CREATE TABLE audit (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    recorded_at  TEXT NOT NULL,
    actor        TEXT, -- absent: the caller had no name
    -- Whether the name is only what the caller stated.
    is_as_stated INTEGER NOT NULL,
    key_id       TEXT, -- the key that proves the name
    place        TEXT NOT NULL,
    request_id   TEXT,
    trace_id     TEXT,
    action       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    value_before TEXT, -- JSON; absent: it did not exist
    value_after  TEXT  -- JSON; absent: it does not exist any more
) STRICT;

CREATE TRIGGER audit_is_not_updated BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
