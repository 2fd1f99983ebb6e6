-- Recalculations that wait for approval, and policies that nobody has published yet.

-- Who let it through although it moves prices far; such a run is not held. The state `held` is a further one: it waits
-- for this.
ALTER TABLE recalculation_runs ADD COLUMN approved_by TEXT;

-- Policies as their authors left them; what is in them need not be right.
CREATE TABLE policy_drafts (
    name       TEXT PRIMARY KEY NOT NULL,
    revision   INTEGER NOT NULL, -- grows with every change, beyond that of an earlier draft of the same name
    source     TEXT NOT NULL,
    author     TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
