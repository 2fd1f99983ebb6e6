-- Who changed what: an entry for each change that a caller makes, in the transaction of the change.
CREATE TABLE audit (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recorded_at  TIMESTAMPTZ NOT NULL,
    actor        TEXT, -- absent: the caller had no name
    -- Whether the name is only what the caller stated.
    is_as_stated BOOLEAN NOT NULL,
    key_id       TEXT, -- the key that proves the name
    place        TEXT NOT NULL,
    request_id   TEXT,
    trace_id     TEXT,
    action       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    value_before TEXT, -- JSON; absent: it did not exist
    value_after  TEXT  -- JSON; absent: it does not exist any more
);

CREATE OR REPLACE FUNCTION refuse_to_change_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit is append-only';
END
$$;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit();
