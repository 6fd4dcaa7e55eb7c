-- Folded states, large contents, and the archive of the journal. All of it is compressed already, or not worth it.

CREATE TABLE merit.snapshots (
    cell text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (cell, sequence)
);

-- In parts, since a value has at most 1 GB, and a message of the protocol too.
CREATE TABLE merit.snapshot_parts (
    cell text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    part integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (cell, sequence, part),
    FOREIGN KEY (cell, sequence) REFERENCES merit.snapshots ON DELETE CASCADE
);
ALTER TABLE merit.snapshot_parts ALTER COLUMN data SET STORAGE EXTERNAL;

-- Tenants as bytes: a name may hold what no text of PostgreSQL does.
CREATE TABLE merit.blobs (
    cell text COLLATE "C" NOT NULL,
    tenant bytea NOT NULL,
    digest bytea NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (cell, tenant, digest)
);
ALTER TABLE merit.blobs ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE merit.segments (
    cell text COLLATE "C" NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    time_ns bigint NOT NULL,
    bytes bigint NOT NULL,
    hash bytea NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (cell, first)
);
ALTER TABLE merit.segments ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE merit.anchors (
    cell text COLLATE "C" NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    data bytea NOT NULL,
    signature bytea NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (cell, first)
);
