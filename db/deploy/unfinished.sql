-- Deploy logflume:unfinished to pg
--
-- Without a transaction around it, so that logs are written while the index is made. A deploy that
-- was interrupted can be started again.

ALTER TABLE logs ADD COLUMN IF NOT EXISTS empty boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN logs.empty IS
    'The sweep found neither parts nor a run that began: nothing is owed until some come.';

DROP INDEX CONCURRENTLY IF EXISTS logs_unfinished;
CREATE INDEX CONCURRENTLY logs_unfinished ON logs (id)
WHERE (purged_at IS NULL OR late_parts OR archive_outdated) AND NOT empty;

COMMENT ON INDEX logs_unfinished IS
    'What the sweep looks through: as large as the logs under way, however many there were.';
