-- Revert logflume:log_parts from pg

BEGIN;

DELETE FROM partman.part_config WHERE parent_table = 'public.log_parts';
DROP TABLE log_parts;
DROP TABLE IF EXISTS partman.template_public_log_parts;

COMMIT;
