-- Revert logflume:log_parts from pg

BEGIN;

DROP FUNCTION analyze_parts, drop_partition, make_partition, configure_partitions, open_partitions,
    lock_partition, freeze_partition, stray_logs, partition_logs, count_partition_parts, partition_has_parts;
DROP VIEW log_partitions;
DROP FUNCTION last_part;
DELETE FROM partman.part_config WHERE parent_table = 'public.log_parts';
DROP TABLE log_parts;
DROP TABLE IF EXISTS partman.template_public_log_parts;
DROP FUNCTION number_last, number_whole;

COMMIT;
