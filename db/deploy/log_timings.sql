-- Deploy logflume:log_timings to pg

BEGIN;

ALTER TABLE logs ADD COLUMN step_count integer;

COMMENT ON COLUMN logs.step_count IS
    'Timed steps found when the content was verified; null: nobody looked.';

CREATE TABLE log_timings (
    log_id bigint NOT NULL REFERENCES logs ON DELETE CASCADE,
    place integer NOT NULL,
    timer text COLLATE "C" NOT NULL,
    event text NOT NULL,
    fold text NOT NULL,
    line bigint NOT NULL,
    start_ns bigint NOT NULL,
    finish_ns bigint NOT NULL CHECK (finish_ns >= start_ns),
    PRIMARY KEY (log_id, place)
);

COMMENT ON TABLE log_timings IS
    'The timed steps that verified logs tell of by their markers, in the order they ended.';
COMMENT ON COLUMN log_timings.timer IS 'The id that the log gives the step.';
COMMENT ON COLUMN log_timings.event IS 'The runner''s name for the step; may be empty.';
COMMENT ON COLUMN log_timings.fold IS 'The innermost fold that the step began in; may be empty.';
COMMENT ON COLUMN log_timings.line IS 'The line it began in, from 0.';
COMMENT ON COLUMN log_timings.start_ns IS 'Nanoseconds since the epoch, by the runner''s clock.';

COMMIT;
