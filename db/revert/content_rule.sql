-- Revert logflume:content_rule from pg

BEGIN;

DROP FUNCTION content_parts;
DROP FUNCTION log_attempt;

COMMIT;
