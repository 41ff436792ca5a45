-- Verify logflume:partman on pg

SELECT parent_table FROM partman.part_config WHERE false;
SELECT 'partman.create_partition_time'::regproc;
