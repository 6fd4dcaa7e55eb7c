-- What stopped a cell, so that whoever leads next is not stopped by it too. To let something pass again, delete its row.

CREATE TABLE merit.quarantine (
    cell text COLLATE "C" NOT NULL,
    -- Of a task that was submitted, a report or the like, as hexadecimal digits; empty for one that is named.
    digest text COLLATE "C" NOT NULL,
    -- The name of a task that is in the state; as bytes, since it may hold what no text of PostgreSQL does.
    task bytea NOT NULL,
    reason text NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cell, digest, task)
);
