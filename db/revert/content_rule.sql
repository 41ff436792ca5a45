-- Revert logflume:content_rule from pg

BEGIN;

DROP FUNCTION write_content, missing_numbers, is_complete, content_summary, content_source, merged_parts,
    content_parts, log_attempt;

COMMIT;
