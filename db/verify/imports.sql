-- Verify logflume:imports on pg

SELECT job_id, kind, seen, written_at, note FROM imported_logs WHERE false;
