-- Deploy logflume:unarchived to pg
--
-- Without a transaction around it, so that logs are written while the index is made. A deploy that
-- was interrupted can be started again.

DROP INDEX CONCURRENTLY IF EXISTS logs_unarchived;
CREATE INDEX CONCURRENTLY logs_unarchived ON logs (id)
WHERE (NOT archive_verified OR late_parts) AND NOT empty;

COMMENT ON INDEX logs_unarchived IS
    'Finds the oldest log under way: those that only wait for their purge are not in it.';
