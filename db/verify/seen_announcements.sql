-- Verify logflume:seen_announcements on pg

SELECT 1 / (pg_get_functiondef('announce_parts'::regproc) LIKE '%pg_current_xact_id%')::integer;
