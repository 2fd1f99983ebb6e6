-- The keys of callers. A key that was revoked or has expired stays: what it did is recorded under its name,
-- and access control stays on once a key exists.
CREATE TABLE access_keys (
    id TEXT NOT NULL PRIMARY KEY,
    -- Who acts with it; several keys may have one name.
    name TEXT NOT NULL,
    -- SHA-256 of the key, in hexadecimal digits.
    digest TEXT NOT NULL,
    -- Separated by blanks.
    scopes TEXT NOT NULL,
    created_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT
) STRICT, WITHOUT ROWID;
