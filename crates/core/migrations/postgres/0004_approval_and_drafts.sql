-- Recalculations that wait for approval, and policies that nobody has published yet.

-- Who let it through although it moves prices far; such a run is not held. The state `held` is a further one: it waits
-- for this.
ALTER TABLE recalculation_runs ADD COLUMN approved_by text;

-- Policies as their authors left them; what is in them need not be right.
CREATE TABLE policy_drafts (
    name       text PRIMARY KEY,
    revision   bigint NOT NULL, -- grows with every change, beyond that of an earlier draft of the same name
    source     text NOT NULL,
    author     text NOT NULL,
    updated_at timestamptz NOT NULL
);
