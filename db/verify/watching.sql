-- Verify logflume:watching on pg

SELECT job_id, way, until FROM watched_logs WHERE false;
SELECT generation, late_parts FROM logs WHERE false;
SELECT announce_parts('{}', '{}');
