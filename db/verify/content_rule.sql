-- Verify logflume:content_rule on pg

BEGIN;

DO $$
DECLARE
    log CONSTANT bigint := -1;
    older CONSTANT bigint := -1;
    newer CONSTANT bigint := -2;
    unnamed CONSTANT bigint := -3;
    closed CONSTANT bigint := -4;
    summary record;
BEGIN
    INSERT INTO logs (id, job_id) VALUES (log, 9223372036854775807);
    INSERT INTO log_attempts (id, log_id, uuid, began_at, closed_at) VALUES
        (older, log, 'a', '2000-01-01', NULL), (newer, log, 'b', '2000-01-02', NULL),
        (unnamed, log, '', NULL, NULL), (closed, log, 'c', now(), now());
    ASSERT log_attempt(log) = newer;

    INSERT INTO log_parts (id, log_id, attempt_id, created_at, number, final, content) VALUES
        (-1, log, older, now(), 0, false, 'of an earlier attempt'), (-2, log, closed, now(), 0, false, 'closed'),
        (-4, log, newer, now(), 1, false, 'replaced'), (-3, log, newer, now() - interval '1 s', 1, false, '1'),
        (-5, log, newer, now(), 0, false, '0'), (-6, log, newer, now(), 3, true, '3'),
        (-7, log, unnamed, now(), number_whole(), false, 'w'),
        (-8, log, unnamed, now(), number_last(), false, 'l'), (-9, log, older, now(), number_last(), false, 'l');
    ASSERT (SELECT string_agg(content, '' ORDER BY number, id) FROM content_parts(log, newer)) = 'w013l';
    ASSERT (SELECT string_agg(content, '' ORDER BY first, id)
        FROM content_source(log, newer, false)) = 'w013l';
    SELECT * INTO summary FROM content_summary(log, newer, false, 10);
    ASSERT (summary.parts, summary.bytes, summary.missing_parts, summary.ended, summary.has_new, summary.has_old)
        = (5, 5, 1, true, true, false);
    ASSERT (SELECT runs IS NULL FROM content_summary(log, newer, false, 3));

    PERFORM write_content(log, newer, false, false, now(), 5, 1, summary.runs, 100, NULL, NULL);
    ASSERT (SELECT content = 'w013l' AND content_sha256 = sha256('w013l') FROM logs WHERE id = log);
    ASSERT (SELECT (content_bytes, part_count, missing_parts) = (5, 5, 1) AND complete IS NULL
        FROM log_rows WHERE id = log);
    UPDATE log_attempts SET total_parts = 6, total_bytes = 4, total_sha256 = sha256('0123') WHERE id = newer;
    ASSERT (SELECT array_agg((first, last)::text) FROM missing_numbers(log, newer, 9)) = '{"(2,2)","(4,5)"}';
    ASSERT (SELECT count(*) = 1 FROM missing_numbers(log, newer, 1));
    PERFORM write_content(log, newer, false, false, now(), 5, 1, summary.runs, 100, NULL, NULL);
    ASSERT (SELECT NOT complete FROM log_rows WHERE id = log), 'a log with a gap is complete';
    UPDATE log_attempts SET total_parts = 4 WHERE id = newer;

    -- Once the parts are gone, late ones are merged into the content.
    DELETE FROM log_parts WHERE log_id = log;
    INSERT INTO log_parts (id, log_id, attempt_id, created_at, number, final, content) VALUES
        (-10, log, newer, now(), 2, false, '2'), (-11, log, newer, now(), 0, false, 'in the content already');
    ASSERT (SELECT string_agg(content, '' ORDER BY first, id) FROM merged_parts(log, newer)) = 'w0123l';
    SELECT * INTO summary FROM content_summary(log, newer, true, 10);
    ASSERT (summary.parts, summary.missing_parts, summary.has_new, summary.has_old) = (6, 0, true, true);
    ASSERT NOT EXISTS (SELECT FROM missing_numbers(log, newer, 9)), 'numbers in the content are missing';
    ASSERT is_complete(newer, summary.runs, 'w0123l', sha256('w0123l'));
    ASSERT NOT is_complete(newer, summary.runs, 'w0124l', sha256('w0124l'));
    PERFORM write_content(log, newer, true, false, now(), 6, 0, NULL, 4, '!', 2);
    ASSERT (SELECT content = 'w012!' AND left_out_bytes = 2 AND NOT complete FROM logs WHERE id = log), 'the log is not cut';
END
$$;

ROLLBACK;
