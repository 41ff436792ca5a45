-- Verify logflume:open_attempts on pg

SELECT log_id, attempt_id, is_open, is_log, begun, moved
FROM open_attempts('{}', '{}', '{}', '{}');
