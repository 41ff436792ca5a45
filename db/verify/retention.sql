-- Verify logflume:retention on pg

SELECT l.expired_at, h.held_at, h.reason
FROM logs l JOIN log_holds h ON h.log_id = l.id WHERE false;
SELECT 1 / (count(*) = 2)::integer FROM pg_index
WHERE indexrelid IN ('logs_archived'::regclass, 'logs_empty'::regclass) AND indisvalid;
