-- Verify logflume:roles on pg

SELECT 1 / (
    has_table_privilege('logflume_drain', 'log_parts', 'INSERT')
    AND has_table_privilege('logflume_worker', 'logs', 'UPDATE')
    AND has_function_privilege('logflume_worker', 'make_partition(timestamptz)', 'EXECUTE')
    AND has_table_privilege('logflume_web', 'watched_logs', 'INSERT')
    AND has_table_privilege('logflume_operator', 'log_holds', 'INSERT')
    AND NOT has_function_privilege('public', 'drop_partition(text)', 'EXECUTE')
)::integer;
