/* One job's log, from the queue to the archive, through two runs (attempts) of the job.
 *
 * README.md says what is modelled, what is left out and how to run it. Names are those of the code.
 * A set of parts has one bit per message; a part's bytes are its bit.
 */

#ifndef TROUBLES
#define TROUBLES 2 /* failures in one run of the model */
#endif
#ifndef FLUSHES
#define FLUSHES 2 /* concurrent flushes */
#endif
#define TROUBLE troubles > 0 -> troubles--
#define TROUBLE_IF(met) troubles > 0 && (met) -> troubles--

/* Without REQUEUE one run of the job (attempt A) sends parts 0 and 1; the latter is final. With it,
 * run A sends part 0 and its successor B part 1, both final, and the log may be cleared. */
#ifdef REQUEUE
#define ATTEMPT(m) (m)
#define PARTS_OF(a) ((a) == NONE -> 0 : BIT(a))
#define EXPECTED (!HAS(closed, B) -> 2 : (!HAS(closed, A) -> 1 : 0))
#define LOG_ATTEMPT (IS_OPEN(B) -> B : (IS_OPEN(A) -> A : NONE))
#define CONTENT_ATTEMPT (sha256 == 0 -> NONE : (HAS(sha256, B) -> B : A))
#else
#define ATTEMPT(m) A
#define PARTS_OF(a) ((a) == NONE -> 0 : 3)
#define EXPECTED 3
#define LOG_ATTEMPT (IS_OPEN(A) -> A : NONE)
#define CONTENT_ATTEMPT (sha256 == 0 -> NONE : A)
#endif
#define BIT(m) (1 << (m))
#define HAS(set, one) (((set) >> (one)) & 1)
#define COUNT(set) (HAS(set, 0) + HAS(set, 1))
#define A 0
#define B 1
#define NONE 2
#define DOUBLED 8 /* content that contains bytes twice */
#define SPOILT 16 /* an object that reads back wrong */

mtype = { READY, UNACKED, ACKED };
mtype queue[2] = READY;
byte troubles = TROUBLES;

/* log_parts: parts committed in the old partition and in today's. A part stored twice counts once,
 * because the content rule takes one part per number. */
byte log_parts[2];
byte today;            /* the partition for parts received now */
bool dropped;          /* the old partition was dropped */
byte writers[2];       /* transactions that hold ROW EXCLUSIVE on a partition, and log_parts */
bool is_read;          /* an aggregation holds ACCESS SHARE on them */
bool partition_locked; /* a drop holds the old one in SHARE mode */

/* log_attempts: sets of attempts, and the number of flushes that hold KEY SHARE locks. */
byte began, closed, key_share;

/* The row of logs, with its column names. `sha256` is content_sha256, 0 for null, represented by the
 * set of parts in the content, because different contents have different hashes. */
bool row_locked;
byte sha256, content_runs, parts_since = NONE;
bool has_content, aggregated_at, archive_verified, purged_at, late_parts, archive_outdated;
bool is_empty = true; /* like a missing row, until the first part arrives */

byte object; /* in the bucket: a set of parts as in sha256, or SPOILT, or 0 for none */

/* Whether a workflow run is open, and whether it has an unprocessed signal. */
bool running, signalled;

/* Pending steps of a worker that hung and was replaced: the SHA-256 in their input. */
byte late_purge, late_verify;

/* An upload that the store has not executed yet, although its worker gave up; 0: none. Its condition:
 * the object that the worker saw. is_unsettled is archive_settles_at; it is in the past when no upload
 * is late. */
byte late_upload, late_upload_saw;
bool is_unsettled;

/* Violated promises; must never be true. */
bool byte_lost, byte_doubled, from_closed_attempt, runs_mixed, purged_unverified,
    dropped_unarchived, log_not_ended;

#ifdef FAULT_CLOSED_ATTEMPTS_TAKE_PARTS
#define IS_CLOSED(a) false
#else
#define IS_CLOSED(a) HAS(closed, a)
#endif
#define IS_OPEN(a) (HAS(began, a) && !IS_CLOSED(a))
#define CONTENT_PARTS(a) ((log_parts[0] | log_parts[1]) & PARTS_OF(a))
#define GONE (parts_since == 0 && dropped)
/* db/deploy/pending.sql logs_pending; db/partitions.py UNFINISHED */
#define PENDING ((!purged_at || late_parts || archive_outdated) && !is_empty)
#define IS_BARE ((log_parts[0] | log_parts[1]) == 0 && !aggregated_at && !archive_outdated)
#define CHECK_DELETION (is_unsettled && late_upload == 0 && IS_BARE)
#define UNFINISHED (!archive_verified || !purged_at || late_parts)

#ifdef FAULT_UPLOAD_WITHOUT_CONDITION
#define UPLOAD_MAY_REPLACE(seen) true
#else
#define UPLOAD_MAY_REPLACE(seen) (object == seen)
#endif
#ifdef FAULT_DELETION_WITHOUT_CHECK
#define SETTLES false
#else
#define SETTLES true
#endif

#ifdef FAULT_PURGE_DURING_A_FLUSH
#define CAN_PURGE !row_locked
#else
#define CAN_PURGE (!row_locked && key_share == 0) /* otherwise it fails and is retried */
#endif
#ifdef FAULT_PURGE_WITHOUT_THE_HASH
#define IS_VERIFIED(hash) true
#else
#define IS_VERIFIED(hash) (sha256 == hash && archive_verified)
#endif
#define HAS_ALL_PARTS (GONE -> (CONTENT_PARTS(CONTENT_ATTEMPT) & ~content_runs) == 0 \
    : COUNT(CONTENT_PARTS(CONTENT_ATTEMPT)) <= COUNT(content_runs))

inline purge() {
    purged_unverified = has_content && object != sha256;
    assert(!purged_unverified);
    has_content = false;
    purged_at = true
}

#ifdef FAULT_VERIFY_WITHOUT_THE_HASH
#define CAN_MARK_VERIFIED(hash) aggregated_at
#else
#define CAN_MARK_VERIFIED(hash) (aggregated_at && sha256 == hash)
#endif

inline end_transaction() {
    row_locked = (has_row -> false : row_locked);
    key_share = (has_attempt -> key_share - 1 : key_share);
    writers[day] = (has_written -> writers[day] - 1 : writers[day]);
    has_row = false; has_attempt = false; has_written = false
}

/* One flush with a batch of one part. Two may belong to two drains or to one. */
#define FIRST 0 /* symmetry reduction: of two idle flushes this one takes the next message */
bool first_is_busy;

active [FLUSHES] proctype Flush() {
    byte m, day;
    bool has_row, has_attempt, has_written, was_aggregated, is_open, begun;
    bool is_unacked, is_unsignalled;

receive:
    atomic {
        first_is_busy = (_pid == FIRST -> false : first_is_busy);
        m = 0; day = 0; was_aggregated = false; is_open = false; begun = false;
        if
        :: queue[0] == READY && (_pid == FIRST || first_is_busy) -> m = 0
        :: queue[1] == READY && (_pid == FIRST || first_is_busy) -> m = 1
        fi;
        first_is_busy = first_is_busy || _pid == FIRST;
        day = today;
        queue[m] = UNACKED;
        is_unacked = true
    }
#ifdef FAULT_ACK_BEFORE_COMMIT
    atomic { queue[m] = ACKED; is_unacked = false };
#endif

store_batch:
    atomic {
        if
        :: day == 1 || dropped || !partition_locked ->
            /* open_attempts: beginning an attempt or adding to an aggregated log locks its row. */
            if
            :: HAS(began, ATTEMPT(m)) && !aggregated_at
            :: (!HAS(began, ATTEMPT(m)) || aggregated_at) && !row_locked ->
                row_locked = true;
                has_row = true;
                was_aggregated = aggregated_at
            fi;
            key_share++;
            has_attempt = true;
            begun = !HAS(began, ATTEMPT(m));
            is_open = !IS_CLOSED(ATTEMPT(m));
            day = (dropped -> 1 : day);
            if
            :: is_open -> has_written = true; writers[day]++
            :: else
            fi
        :: TROUBLE_IF(is_unacked); queue[m] = READY; is_unacked = false; goto store_batch
        fi
    }
    if
    :: atomic {
        true ->
        if
        :: is_open ->
            log_parts[day] = log_parts[day] | BIT(m);
            began = began | BIT(ATTEMPT(m));
            if
            :: begun && aggregated_at && CONTENT_ATTEMPT != LOG_ATTEMPT ->
                aggregated_at = false; archive_verified = false; purged_at = false
            :: else
            fi;
            late_parts = late_parts || (was_aggregated && aggregated_at);
            is_empty = is_empty && !begun;
            is_unsignalled = true
        :: else
        fi;
        end_transaction()
        }
    :: atomic { TROUBLE; goto crash }
    fi;
after_commit:
    atomic {
        was_aggregated = false; is_open = false; day = 0;
        if
        :: is_unacked -> queue[m] = ACKED; is_unacked = false
        :: is_unsignalled -> running = true; signalled = true; is_unsignalled = false /* parts_stored */
        :: TROUBLE_IF(is_unacked || is_unsignalled); goto crash
        :: !is_unacked && !is_unsignalled
        fi;
        if
        :: is_unacked || is_unsignalled -> goto after_commit
        :: else -> goto receive
        fi
    }

crash:
    atomic {
        end_transaction();
        queue[m] = (is_unacked -> READY : queue[m]);
        is_unacked = false;
        goto receive
    }
}

inline end_run() {
    hash = 0;
    if
    :: signalled -> goto aggregate
    :: else -> running = false; goto idle
    fi
}

active proctype LogLifecycle() {
    byte hash, runs, old, attempt, since, seen;

idle:
    atomic { running; goto aggregate };
aggregate:
    atomic { /* read the state, under the row's lock */
        !row_locked ->
        signalled = false;
        hash = 0;
        attempt = LOG_ATTEMPT;
        old = (GONE && CONTENT_ATTEMPT == attempt -> content_runs : 0);
        runs = old | CONTENT_PARTS(attempt);
        since = (old -> parts_since : (log_parts[0] -> 0 : 1));
        if
        :: runs == 0 -> goto aggregated
        :: else
        fi;
        if
        :: GONE && aggregated_at && runs == old -> late_parts = false; hash = sha256; goto aggregated
        :: else
        fi;
        if
        :: old && !has_content -> goto restore
        :: else -> row_locked = true; is_read = true
        fi
    }
    atomic { /* write the content, in a later statement */
        hash = old | CONTENT_PARTS(attempt);
#ifdef FAULT_APPEND
        hash = (sha256 && CONTENT_ATTEMPT == attempt
            -> sha256 | hash | (sha256 & hash -> DOUBLED : 0) : hash);
#endif
        if
        :: hash == sha256 -> has_content = !purged_at
        :: else -> has_content = true; purged_at = false; archive_verified = false
        fi;
        sha256 = hash; content_runs = runs; parts_since = since;
        aggregated_at = true; late_parts = false;
        row_locked = false; is_read = false
    }
aggregated:
    atomic {
        runs = 0; old = 0; attempt = 0; since = 0;
        if
        :: archive_outdated || CHECK_DELETION -> goto delete_archive
        :: !(archive_outdated || CHECK_DELETION) -> goto made
        :: TROUBLE; goto aggregate /* the result was lost */
        fi
    }
delete_archive:
    atomic {
        is_unsettled = SETTLES && (archive_outdated || object);
        object = 0
    }
    if
    :: archive_outdated = false
    :: atomic { TROUBLE; goto delete_archive }
    fi;
made:
    atomic {
        if
        :: hash == 0 || (sha256 == hash && purged_at) -> end_run()
        :: hash != 0 && sha256 == hash && !purged_at && archive_verified -> goto verified
        :: else -> goto archive
        fi
    }
archive:
    atomic { /* inspect the object, mark_archiving, and read the content to upload */
        !row_locked ->
        seen = object;
        if
        :: signalled || sha256 != hash || !aggregated_at || purged_at || !has_content -> goto aggregate
        :: else -> archive_verified = false
        fi
    }
    atomic { /* the upload ends, and is verified */
        !row_locked ->
        if
        :: !UPLOAD_MAY_REPLACE(seen) -> goto archive
        :: UPLOAD_MAY_REPLACE(seen)
        fi;
        if
        :: CAN_MARK_VERIFIED(hash) -> object = hash; archive_verified = true
        :: !CAN_MARK_VERIFIED(hash) -> object = hash; goto aggregate
        :: TROUBLE_IF(CAN_MARK_VERIFIED(hash)); object = hash; archive_verified = true; late_verify = hash
        :: TROUBLE; object = SPOILT; goto archive
        :: TROUBLE; goto archive
        :: TROUBLE_IF(late_upload == 0); late_upload = hash; late_upload_saw = seen; goto archive
        fi
    }
verified:
    atomic { /* new parts or content arrive, or the purge delay expires */
        if
        :: signalled -> goto aggregate
        :: is_unsettled && late_upload == 0 -> /* check_archive */
            archive_verified = archive_verified && object == sha256;
            is_unsettled = false;
            goto verified
        :: CAN_PURGE && !is_unsettled && IS_VERIFIED(hash) && HAS_ALL_PARTS -> purge(); end_run()
        :: CAN_PURGE && !is_unsettled && !(IS_VERIFIED(hash) && HAS_ALL_PARTS) -> goto aggregate
        :: TROUBLE; late_purge = hash; goto verified
        fi
    }
restore:
    atomic {
        !row_locked ->
        if
        :: !has_content && sha256 && sha256 == object -> has_content = true; purged_at = false; goto aggregate
        :: has_content || sha256 == 0 -> goto aggregate
        :: else
        fi
    }
    atomic { signalled -> goto aggregate } /* stuck */
}

/* Workers that hung: the server reassigned their activities, and they complete nevertheless. */
active proctype LateWorker() {
    do
    :: atomic {
        late_purge && CAN_PURGE ->
        if
        :: IS_VERIFIED(late_purge) && HAS_ALL_PARTS && !is_unsettled -> purge()
        :: else
        fi;
        late_purge = 0
        }
    :: atomic {
        late_verify && !row_locked ->
        archive_verified = archive_verified || CAN_MARK_VERIFIED(late_verify);
        late_verify = 0
        }
    :: atomic { /* an upload lands late */
        late_upload ->
        object = (UPLOAD_MAY_REPLACE(late_upload_saw) -> late_upload : object);
        late_upload = 0; late_upload_saw = 0
        }
    od
}

active proctype Sweep() {
    do
    :: atomic { /* mark_empty */
        PENDING && !running && IS_BARE && !is_unsettled && LOG_ATTEMPT == NONE && !row_locked -> is_empty = true
        }
    :: atomic { /* start a workflow */
        PENDING && !running && (!IS_BARE || CHECK_DELETION) -> running = true; signalled = true
        }
    od
}

/* The log may be cleared. */
active proctype ReplaceContents() {
#ifdef REQUEUE
    if
    :: true
    :: atomic { !row_locked -> row_locked = true };
        atomic {
            key_share == 0 && !partition_locked ->
            log_parts[0] = 0; log_parts[1] = 0;
            closed = began;
            has_content = false; sha256 = 0; content_runs = 0; parts_since = NONE;
            late_parts = false; aggregated_at = false; archive_verified = false; purged_at = false;
            archive_outdated = true; is_empty = false;
            row_locked = false
        }
        if
        :: atomic { signalled = true; running = true }
        :: atomic { TROUBLE }
        fi
    fi
#else
    skip
#endif
}

#ifdef FAULT_DROP_WITHOUT_RESCUE
#define MUST_STAY false
#else
#define MUST_STAY (log_parts[0] && UNFINISHED)
#endif

active proctype PartitionMaintenance() {
#ifdef PARTITIONS
    today = 1;
rescue_parts:
    atomic {
        if
        :: !MUST_STAY
        :: MUST_STAY && !row_locked ->
            log_parts[1] = log_parts[1] | log_parts[0];
            log_parts[0] = 0;
            parts_since = (parts_since == 0 -> 1 : parts_since)
        fi
    }
    atomic { /* drop_partition: SHARE on it, and a check */
        writers[0] == 0 ->
        if
        :: MUST_STAY -> goto rescue_parts
        :: else -> partition_locked = true
        fi
    }
    atomic { /* ACCESS EXCLUSIVE on log_parts, and a second check */
        partition_locked = false;
        if
        :: writers[0] + writers[1] || is_read || MUST_STAY -> goto rescue_parts
        :: else
        fi;
        dropped_unarchived = (log_parts[0] & PARTS_OF(LOG_ATTEMPT) & ~object) != 0;
        assert(!dropped_unarchived);
        log_parts[0] = 0;
        dropped = true
    }
#else
    skip
#endif
}

/* When no step is possible. */
active proctype End() {
    timeout ->
    atomic {
        byte_lost = (EXPECTED & ~object) != 0;
        byte_doubled = (object & DOUBLED) != 0;
        from_closed_attempt = ((HAS(closed, A) && (object & PARTS_OF(A))) ||
            (HAS(closed, B) && (object & PARTS_OF(B))));
        runs_mixed = (object & PARTS_OF(A)) && (object & ~PARTS_OF(A));
        log_not_ended = (running || PENDING || is_unsettled || has_content || row_locked || key_share ||
            queue[0] != ACKED || queue[1] != ACKED);
        assert(!log_not_ended);
        assert(!from_closed_attempt);
        assert(!byte_doubled);
        assert(!runs_mixed);
        assert(!byte_lost)
    }
}
