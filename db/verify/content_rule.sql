-- Verify logflume:content_rule on pg

SELECT has_function_privilege('log_attempt(bigint)', 'execute');
SELECT id, attempt_id, number, created_at, final, content FROM content_parts(0, log_attempt(0));
