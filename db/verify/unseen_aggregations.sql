-- Verify logflume:unseen_aggregations on pg

SELECT 1 / (pg_get_functiondef('open_attempts'::regproc) LIKE '%serialization_failure%')::integer;
