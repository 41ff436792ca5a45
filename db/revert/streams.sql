-- Revert logflume:streams from pg

BEGIN;

DROP FUNCTION announce_parts;
DROP TABLE watched_logs;

COMMIT;
