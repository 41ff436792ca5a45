-- Deploy logflume:content_rule to pg
-- The content rule: which parts are the log, and in which order. Aggregation, the API and the
-- streams all read through these functions; nothing else decides.

BEGIN;

-- plpgsql, so that a session caches its plan.
CREATE FUNCTION log_attempt(log bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT a.id FROM log_attempts a
        WHERE a.log_id = log AND a.closed_at IS NULL AND a.began_at IS NOT NULL
        ORDER BY a.began_at DESC, a.uuid DESC
        LIMIT 1
    );
END
$$;

COMMENT ON FUNCTION log_attempt IS
    'The attempt that is the log: the open one that began last. AMQP times have whole seconds, so '
    'equal ones are ordered by uuid, which is the same in every order of arrival.';

CREATE FUNCTION content_parts(log bigint, attempt bigint)
RETURNS TABLE (
    id bigint, attempt_id bigint, number integer, created_at timestamptz, final boolean, content bytea
)
LANGUAGE sql STABLE AS $$
    -- Of several parts with the same attempt and number the one received last counts: ids are the
    -- order in which Postgres received them. Everything stays in the order of the key, so that
    -- nothing is sorted, however long the log is.
    (
        SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content
        FROM (
            SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content,
                lead(true) OVER (PARTITION BY p.number ORDER BY p.id) AS is_replaced
            FROM log_parts p
            WHERE p.log_id = log AND p.attempt_id = attempt
                AND p.number BETWEEN 0 AND number_last() - 1
        ) p
        WHERE p.is_replaced IS NOT TRUE
        ORDER BY p.number, p.id
    )
    UNION ALL
    -- Content written whole counts as a part before number 0, whichever attempt is the log.
    (
        SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content
        FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id
        WHERE a.log_id = log AND a.closed_at IS NULL AND p.log_id = log AND p.number = number_whole()
        ORDER BY p.id DESC
        LIMIT 1
    )
    UNION ALL
    -- So do `last` parts after every numbered one, in order of arrival, equal bytes only once.
    (
        SELECT min(p.id), (array_agg(p.attempt_id ORDER BY p.id))[1], p.number,
            (array_agg(p.created_at ORDER BY p.id))[1], bool_or(p.final), p.content
        FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id
        WHERE a.log_id = log AND a.closed_at IS NULL AND p.log_id = log AND p.number = number_last()
        GROUP BY p.number, p.content
    )
$$;

COMMENT ON FUNCTION content_parts IS
    'The parts of a log in one of its attempts; its bytes are theirs in the order of number, id. '
    'With log_attempt(log) as the attempt: the log.';

CREATE FUNCTION merged_parts(log bigint, attempt bigint)
RETURNS TABLE (
    first integer, last integer, id bigint, bytes bigint, final boolean, is_new boolean, content bytea
)
LANGUAGE sql STABLE AS $$
    WITH run AS NOT MATERIALIZED (
        SELECT r.first, r.last, r.place, r.bytes,
            substring(l.content FROM r.begin::integer FOR r.bytes::integer) AS content
        FROM logs l, LATERAL (
            SELECT u.*, sum(u.bytes) OVER (ORDER BY u.place) - u.bytes + 1 AS begin
            FROM unnest(l.content_runs) WITH ORDINALITY u (first, last, bytes, place)
        ) r
        -- Of another attempt only what belongs to the log, whichever attempt is the log.
        WHERE l.id = log
            AND (l.content_attempt_id IS NOT DISTINCT FROM attempt
                OR r.first IN (number_whole(), number_last()))
    )
    -- Before every part.
    SELECT r.first, r.last, r.place - 4611686018427387904, r.bytes, false, false, r.content
    FROM run r
    UNION ALL
    SELECT p.number, p.number, p.id, octet_length(p.content), p.final, true, p.content
    FROM content_parts(log, attempt) p
    WHERE NOT EXISTS (
        SELECT FROM run r
        WHERE p.number BETWEEN r.first AND r.last
            AND (p.number < number_last() OR r.content = p.content)
    )
$$;

COMMENT ON FUNCTION merged_parts IS
    'The content rule for a log whose parts were dropped: its content as runs of numbers, and the '
    'parts that are not in it; the bytes are theirs in the order of first, id. A number '
    'in the content is never replaced. Without the row''s copy of the content, runs have no bytes '
    'and every `last` part is new.';

-- Aggregation. `merged` reads what remains of a log whose parts were dropped, otherwise its parts.
CREATE FUNCTION content_source(log bigint, attempt bigint, merged boolean)
RETURNS TABLE (
    first integer, last integer, id bigint, bytes bigint, final boolean, is_new boolean, content bytea
)
LANGUAGE sql STABLE AS $$
    SELECT p.number, p.number, p.id, octet_length(p.content)::bigint, p.final, true, p.content
    FROM content_parts(log, attempt) p WHERE NOT merged
    UNION ALL
    SELECT * FROM merged_parts(log, attempt) WHERE merged
$$;

COMMENT ON FUNCTION content_source IS
    'What a log is aggregated from; the bytes are in the order of first, id.';

-- plpgsql, so that a session caches the plans.
CREATE FUNCTION content_summary(log bigint, attempt bigint, merged boolean, most_runs integer)
RETURNS TABLE (
    parts bigint, bytes bigint, missing_parts bigint, ended boolean, has_new boolean, has_old boolean,
    runs content_run[]
)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH source AS (
        SELECT first, last, id, bytes, final, is_new,
            (first - 1 = lag(last) OVER content AND first NOT IN (0, number_last())) IS NOT TRUE AS begins
        FROM content_source(log, attempt, merged) WINDOW content AS (ORDER BY first, id)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE begins) OVER (ORDER BY first, id) AS place
        FROM source
    ), run AS (
        SELECT place, min(first) AS first, max(last) AS last, sum(bytes)::bigint AS bytes,
            sum(last - first + 1)::bigint AS parts,
            min(first) BETWEEN 0 AND number_last() - 1 AS is_numbered,
            bool_or(final) AS final, bool_or(is_new) AS has_new, bool_or(NOT is_new) AS has_old
        FROM numbered GROUP BY place
    )
    SELECT coalesce(sum(parts), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
        coalesce(
            max(last) FILTER (WHERE is_numbered) + 1 - sum(parts) FILTER (WHERE is_numbered), 0
        )::bigint,
        coalesce(bool_or(final) OR bool_or(first = number_whole()) AND NOT bool_or(is_numbered), false),
        coalesce(bool_or(has_new), false), coalesce(bool_or(has_old), false),
        CASE WHEN count(*) <= most_runs
            THEN array_agg((first, last, bytes)::content_run ORDER BY place) END
    FROM run;
END
$$;

COMMENT ON FUNCTION content_summary IS
    'What aggregation would produce: parts, bytes, numbers missing below the highest, whether the '
    'log has ended (a final part, or written whole), whether there are parts not in the content yet '
    'or content whose parts are gone, and its runs (null if there are more than most_runs).';

CREATE FUNCTION is_complete(attempt bigint, runs content_run[], aggregated bytea, digest bytea) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM (
            SELECT r.*, sum(r.bytes) OVER (ORDER BY r.place) - r.bytes AS before,
                count(*) FILTER (WHERE r.first BETWEEN 0 AND number_last() - 1) OVER () AS numbered
            FROM unnest(runs) WITH ORDINALITY r (first, last, bytes, place)
        ) r
        WHERE r.numbered = 1 AND (r.first, r.last, r.bytes) = (0, a.total_parts - 1, a.total_bytes)
            AND a.total_sha256 = CASE WHEN r.bytes = octet_length(aggregated) THEN digest
                ELSE sha256(substring(aggregated FROM r.before::integer + 1 FOR r.bytes::integer)) END
    )
    FROM log_attempts a WHERE a.id = attempt AND a.total_parts IS NOT NULL
$$;

COMMENT ON FUNCTION is_complete IS
    'Whether the numbered parts of a content are exactly those that the sender of the attempt announced; '
    'null if it announced nothing. digest: SHA-256 of the content, which is not computed again unless '
    'other text surrounds the parts. Without runs, because of gaps or the size limit, it is not complete.';

CREATE FUNCTION missing_numbers(log bigint, attempt bigint, most integer)
RETURNS TABLE (first integer, last integer)
LANGUAGE sql STABLE AS $$
    WITH stored AS (
        SELECT p.number AS first, p.number AS last FROM log_parts p
        WHERE p.log_id = log AND p.attempt_id = attempt AND p.number BETWEEN 0 AND number_last() - 1
        UNION ALL
        SELECT r.first, r.last FROM logs l, unnest(l.content_runs) r
        WHERE l.id = log AND l.content_attempt_id = attempt AND r.first BETWEEN 0 AND number_last() - 1
        UNION ALL
        SELECT a.total_parts, a.total_parts FROM log_attempts a WHERE a.id = attempt
    ), gap AS (
        SELECT coalesce(max(s.last) OVER (
                ORDER BY s.first, s.last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), -1) + 1 AS first, s.first - 1 AS last
        FROM stored s
        WHERE s.first <= (SELECT a.total_parts FROM log_attempts a WHERE a.id = attempt)
    )
    SELECT g.first, g.last FROM gap g WHERE g.first <= g.last ORDER BY g.first LIMIT most
$$;

COMMENT ON FUNCTION missing_numbers IS
    'The lowest ranges of numbers that the sender of an attempt announced and that are neither among '
    'its parts nor in the content.';

CREATE FUNCTION write_content(
    log bigint, attempt bigint, merged boolean, archive_again boolean, oldest_part timestamptz,
    parts bigint, missing bigint, runs content_run[], most_bytes bigint, notice bytea, left_out bigint
)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    aggregated bytea;
    digest bytea;
    is_archived boolean;
BEGIN
    IF left_out IS NULL THEN
        SELECT string_agg(s.content, ''::bytea) INTO aggregated FROM (
            SELECT c.content FROM content_source(log, attempt, merged) c
            ORDER BY c.first, c.id
        ) s;
    ELSE
        SELECT string_agg(s.content, ''::bytea) INTO aggregated FROM (
            SELECT t.content FROM (
                SELECT c.first, c.id,
                    substring(c.content FROM 1 FOR (most_bytes - c.before)::integer) AS content
                FROM (
                    SELECT *, (sum(bytes) OVER (ORDER BY first, id) - bytes)::bigint AS before
                    FROM content_source(log, attempt, merged)
                ) c
                WHERE c.before < most_bytes
                UNION ALL
                SELECT number_last(), 9223372036854775807, notice
            ) t
            ORDER BY t.first, t.id
        ) s;
    END IF;
    aggregated := coalesce(aggregated, '');
    digest := sha256(aggregated);
    -- Bytes that the archive already holds are not stored again, unless they are to be archived again.
    is_archived := NOT archive_again AND EXISTS (SELECT FROM logs l WHERE l.id = log AND l.content_sha256 = digest);
    UPDATE logs l SET
        content = CASE WHEN is_archived AND l.purged_at IS NOT NULL THEN NULL ELSE aggregated END,
        purged_at = CASE WHEN is_archived THEN l.purged_at END,
        archived_at = CASE WHEN is_archived THEN l.archived_at END,
        archive_verified = is_archived AND l.archive_verified,
        content_bytes = octet_length(aggregated), content_sha256 = digest, content_attempt_id = attempt,
        content_runs = runs, part_count = parts, missing_parts = missing,
        complete = is_complete(attempt, runs, aggregated, digest), left_out_bytes = left_out,
        parts_since = oldest_part, late_parts = false, archiving = false, aggregated_at = now(),
        updated_at = now(), expired_at = NULL
    WHERE l.id = log;
END
$$;

COMMENT ON FUNCTION write_content IS
    'Aggregates a log, whose row is locked, into its row, with what content_summary() said about it. '
    'If left_out is not null, the content is cut after most_bytes, and the notice is appended.';

COMMIT;
