-- Deploy logflume:imports to pg

BEGIN;

CREATE TABLE imported_logs (
    job_id bigint PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('archived', 'content', 'parts', 'empty')),
    seen bytea NOT NULL,
    written_at timestamptz,
    generation integer NOT NULL DEFAULT 0,
    note text
);

COMMENT ON TABLE imported_logs IS
    'Logs that came from a travis-logs database; what is as it was seen there is not read again.';
COMMENT ON COLUMN imported_logs.kind IS 'Where travis-logs had the text when it was read.';
COMMENT ON COLUMN imported_logs.seen IS 'Digest of the rows there, of all but the text.';
COMMENT ON COLUMN imported_logs.written_at IS
    'Its time of update there, which changes when content is written whole.';
COMMENT ON COLUMN imported_logs.generation IS
    'That of the log when it was taken over: another one means that a client wrote it here.';
COMMENT ON COLUMN imported_logs.note IS 'What is otherwise here than there, for a person.';

COMMIT;
