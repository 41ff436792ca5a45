-- Deploy logflume:retention to pg
--
-- Without a transaction around it, so that logs are written while the indexes are made. A deploy that
-- was interrupted can be started again.

ALTER TABLE logs ADD COLUMN IF NOT EXISTS expired_at timestamptz;

COMMENT ON COLUMN logs.expired_at IS
    'When retention deleted the text; null again once parts or content come.';

CREATE TABLE IF NOT EXISTS log_holds (
    log_id bigint PRIMARY KEY REFERENCES logs,
    held_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL
);

COMMENT ON TABLE log_holds IS
    'Logs under legal hold: retention leaves them alone, and nobody writes or clears them whole.';

DROP INDEX CONCURRENTLY IF EXISTS logs_archived;
CREATE INDEX CONCURRENTLY logs_archived ON logs (archived_at, id) WHERE purged_at IS NOT NULL;

COMMENT ON INDEX logs_archived IS 'What retention looks through, the oldest first.';

DROP INDEX CONCURRENTLY IF EXISTS logs_empty;
CREATE INDEX CONCURRENTLY logs_empty ON logs (updated_at, id) WHERE empty;

COMMENT ON INDEX logs_empty IS 'Logs without text, for retention, the oldest first.';
