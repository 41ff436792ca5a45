-- Revert logflume:roles from pg
-- The roles stay: other databases of the cluster may use them, and users are members of them. All
-- their privileges in this database are revoked.

BEGIN;

REVOKE ALL ON FUNCTION configure_partitions, make_partition, drop_partition, analyze_parts FROM logflume_worker;

DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT DISTINCT r.rolname AS role, s.oid::regnamespace AS schema, m.kind
        FROM pg_roles r, pg_namespace s, (VALUES ('TABLES'), ('SEQUENCES')) m (kind)
        WHERE r.rolname IN ('logflume_drain', 'logflume_worker', 'logflume_web', 'logflume_operator')
            AND s.nspname IN ('public', 'sqitch')
    LOOP
        EXECUTE format('REVOKE ALL ON ALL %s IN SCHEMA %s FROM %I', found.kind, found.schema, found.role);
        EXECUTE format('REVOKE ALL ON SCHEMA %s FROM %I', found.schema, found.role);
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), found.role);
    END LOOP;
END
$$;

COMMIT;
