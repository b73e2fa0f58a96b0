-- What the coordinator keeps in a PostgreSQL store that does not hold its journal (F37).
-- Run once, in one transaction, under an advisory lock; the schema itself is made before.
-- docs/reference/bookkeeping-postgresql.md tells the DBA the same in prose.

CREATE TABLE coordinator.bookkeeping (
    version integer NOT NULL
);

INSERT INTO coordinator.bookkeeping (version) VALUES (1);

-- One row per worker and lane; lane -1 is the worker itself. Every transaction of a worker holds
-- FOR KEY SHARE on its row, whoever takes over locks them FOR UPDATE (rule 3).
CREATE TABLE coordinator.fences (
    journal_id   text    NOT NULL,
    worker       bigint  NOT NULL,
    lane         integer NOT NULL,
    fenced       boolean NOT NULL DEFAULT false,
    session_name text    NOT NULL DEFAULT '',
    PRIMARY KEY (journal_id, worker, lane)
);

-- One row per unit that was applied here, or whose late apply must be stopped (a tombstone).
CREATE TABLE coordinator.undo (
    journal_id text        NOT NULL,
    unit_id    text        NOT NULL,
    digest     text        NOT NULL,
    state      text        NOT NULL CHECK (state IN ('applied', 'undone', 'tombstone')),
    wrote      boolean     NOT NULL DEFAULT false,
    record     json,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, unit_id),
    CHECK ((state = 'tombstone') = (record IS NULL))
);
