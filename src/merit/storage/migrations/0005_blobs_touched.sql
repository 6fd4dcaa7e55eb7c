-- When a blob was last used, in Unix time: what nobody has used for long, and no task names any more, is removed. Those that
-- are there count as used now. The default also serves nodes of the version before, which still lead while this is applied.
ALTER TABLE merit.blobs
    ADD COLUMN touched_ns bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000000)::bigint;

CREATE INDEX blobs_touched ON merit.blobs (cell, touched_ns);
