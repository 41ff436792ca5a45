-- Deploy logflume:roles to pg
-- One role per process and one for operators, each with the privileges it needs and no more. Users
-- are created by the operator as members of one of them (docs/security.md). The schema's owner only
-- deploys: what requires ownership, the worker does through the functions in log_parts.

BEGIN;

-- Roles belong to the cluster: a deploy of another database may create them at the same time.
DO $$
DECLARE
    role name;
BEGIN
    FOREACH role IN ARRAY ARRAY['logflume_drain', 'logflume_worker', 'logflume_web', 'logflume_operator']
    LOOP
        IF to_regrole(role) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % is missing and % may not create it: GRANT CREATEROLE or CREATE ROLE % NOLOGIN',
                        role, current_user, role USING ERRCODE = 'insufficient_privilege';
            END;
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- Restored content goes through a temporary table.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO logflume_worker', current_database());
END
$$;

-- Every process checks at startup that the schema is the one it needs.
GRANT USAGE ON SCHEMA public, sqitch TO logflume_drain, logflume_worker, logflume_web, logflume_operator;
GRANT SELECT ON sqitch.changes TO logflume_drain, logflume_worker, logflume_web, logflume_operator;
GRANT SELECT ON maintenance, watched_logs TO logflume_drain, logflume_worker, logflume_web, logflume_operator;

-- The drain writes parts and reads neither parts nor content.
GRANT INSERT (job_id),
    SELECT (id, job_id, content_attempt_id, aggregated_at, late_parts, empty, expired_at, removed_at),
    UPDATE (aggregated_at, archiving, archived_at, archive_verified, purged_at, updated_at, late_parts, empty,
        expired_at)
    ON logs TO logflume_drain;
GRANT INSERT (log_id, uuid, began_at), SELECT,
    UPDATE (began_at, closed_at, stale_until, stale_parts, stale_at, total_parts, total_bytes, total_sha256)
    ON log_attempts TO logflume_drain;
GRANT INSERT ON log_parts, large_dead_letters TO logflume_drain;
GRANT USAGE ON SEQUENCE log_parts_id_seq TO logflume_drain;

-- The worker aggregates and deletes. It inserts no part and changes only a part's receive time.
GRANT SELECT, UPDATE, DELETE ON logs, log_attempts TO logflume_worker;
GRANT SELECT, UPDATE (created_at), DELETE ON log_parts TO logflume_worker;
GRANT SELECT, INSERT, DELETE ON log_timings TO logflume_worker;
GRANT SELECT ON log_holds TO logflume_worker;

-- The web reads, writes content whole, and records which logs have live readers.
GRANT SELECT, INSERT (job_id), UPDATE ON logs TO logflume_web;
GRANT SELECT, INSERT (log_id, uuid), UPDATE (began_at, closed_at, total_parts, total_bytes, total_sha256)
    ON log_attempts TO logflume_web;
GRANT SELECT, INSERT, DELETE ON log_parts TO logflume_web;
GRANT USAGE, SELECT ON SEQUENCE log_parts_id_seq TO logflume_web;
GRANT SELECT, DELETE ON log_timings TO logflume_web;
GRANT SELECT ON log_holds TO logflume_web;
GRANT INSERT, UPDATE, DELETE ON watched_logs TO logflume_web;

-- Operators switch maintenance, hold, import and reconcile logs, requeue dead letters, and read.
GRANT SELECT, INSERT, UPDATE ON logs, log_attempts TO logflume_operator;
GRANT SELECT, INSERT, DELETE ON log_parts TO logflume_operator;
GRANT SELECT, INSERT, DELETE ON log_timings TO logflume_operator;
GRANT SELECT, INSERT, UPDATE ON imported_logs TO logflume_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_holds TO logflume_operator;
GRANT INSERT, UPDATE, DELETE ON maintenance TO logflume_operator;
GRANT SELECT, DELETE ON large_dead_letters TO logflume_operator;
GRANT USAGE, SELECT ON SEQUENCE log_parts_id_seq, log_attempts_id_seq TO logflume_operator;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE logs_id_seq TO logflume_operator;

-- The views run with the owner's privileges, so they are granted like the tables they show.
GRANT SELECT ON log_rows TO logflume_worker, logflume_web, logflume_operator;
GRANT SELECT ON pending_rows, bare_logs, backfill_logs, log_partitions TO logflume_worker, logflume_operator;

GRANT EXECUTE ON FUNCTION configure_partitions, make_partition, drop_partition, analyze_parts TO logflume_worker;

SELECT open_partitions();

COMMIT;
