-- Verify logflume:imports on pg

SELECT job_id, kind, seen, written_at, generation, note FROM imported_logs WHERE false;
