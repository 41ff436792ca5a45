-- Revert logflume:streams from pg

BEGIN;

DROP FUNCTION store_parts, announce_parts;
DROP TABLE watched_logs;

COMMIT;
