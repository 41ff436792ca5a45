-- Verify logflume:partman on pg

SELECT 1 / count(*) FROM pg_extension WHERE extname = 'pg_partman';
SELECT parent_table FROM partman.part_config WHERE false;
