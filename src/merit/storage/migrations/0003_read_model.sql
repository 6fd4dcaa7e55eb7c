-- What is searched: final tasks and workers. All of it can be made again from the journal.

CREATE TABLE merit.reached (
    cell text COLLATE "C" PRIMARY KEY,
    -- Version of the terms and of what is a word; another one begins the read model of the cell anew.
    format integer NOT NULL,
    sequence bigint NOT NULL,
    time_ns bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE merit.tasks (
    cell text COLLATE "C" NOT NULL,
    id_order bigint NOT NULL,
    sequence bigint NOT NULL,
    submitted_ns bigint NOT NULL,
    ended_ns bigint NOT NULL,
    id uuid NOT NULL,
    -- Tenant and idempotency key; nothing for a task without one.
    key text COLLATE "C",
    content text NOT NULL,
    -- JSON, but not of the type json: nobody looks into it here.
    task text NOT NULL,
    terms tsvector NOT NULL,
    PRIMARY KEY (cell, id_order)
);
CREATE INDEX task_ids ON merit.tasks (cell, id);
CREATE INDEX task_keys ON merit.tasks (cell, key) WHERE key IS NOT NULL;
CREATE INDEX task_terms ON merit.tasks USING gin (terms);

-- A span is a run of 1,024 orders: times need no index of their own.
CREATE TABLE merit.spans (
    cell text COLLATE "C" NOT NULL,
    span bigint NOT NULL,
    submitted_first_ns bigint NOT NULL,
    submitted_last_ns bigint NOT NULL,
    ended_first_ns bigint NOT NULL,
    PRIMARY KEY (cell, span)
);

CREATE TABLE merit.workers (
    cell text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    first_ns bigint NOT NULL,
    left_ns bigint NOT NULL,
    capabilities text[] COLLATE "C" NOT NULL,
    tags text[] COLLATE "C" NOT NULL,
    worker text NOT NULL,
    PRIMARY KEY (cell, name)
);
