-- Verify logflume:cut_logs on pg

SELECT left_out_bytes FROM logs WHERE false;
