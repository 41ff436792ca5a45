-- Verify logflume:kept_plans on pg

SELECT join_writers();
SELECT 1 / bool_and(lanname = 'plpgsql')::integer
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid IN ('log_attempt'::regproc, 'announce_parts'::regproc);
SELECT 1 / (pg_get_functiondef('content_parts'::regproc) LIKE '%is_replaced%')::integer;
