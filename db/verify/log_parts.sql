-- Verify logflume:log_parts on pg

SELECT id, log_id, attempt_id, created_at, number, final, content FROM log_parts WHERE false;
SELECT 1 / count(*) FROM partman.part_config WHERE parent_table = 'public.log_parts';
-- Today and the days ahead have partitions of their own beside the default one.
SELECT 1 / (count(*) > 1)::int FROM pg_inherits WHERE inhparent = 'log_parts'::regclass;
