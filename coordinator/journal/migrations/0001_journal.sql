-- The journal: the intent of every unit, its locks, what is to be published, and who works.
-- Documented for the DBA in docs/reference/journal.md (F37).

CREATE TABLE coordinator.journal (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    last_seq   bigint NOT NULL DEFAULT 0,
    pivot_store text,                     -- the store that lives in this database, if one does
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO coordinator.journal DEFAULT VALUES;

-- Each mapping a plan was ever made with, while a unit may still need it (rule 8).
CREATE TABLE coordinator.mappings (
    fingerprint text PRIMARY KEY,
    content     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- A running daemon. The row is a fence: whoever writes as this worker holds it FOR KEY SHARE,
-- whoever takes over locks it FOR UPDATE (rule 3). Heartbeats live elsewhere (rule 4).
CREATE TABLE coordinator.workers (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    lanes      int NOT NULL,
    epoch      bigint NOT NULL DEFAULT 0,  -- an admission of an older one comes too late
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fenced     boolean NOT NULL DEFAULT false,
    fenced_by  bigint,
    fenced_at  timestamptz
);

CREATE TABLE coordinator.heartbeats (
    worker     bigint PRIMARY KEY REFERENCES coordinator.workers ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- How far a takeover got, store by store (rule 6).
CREATE TABLE coordinator.takeovers (
    worker    bigint NOT NULL,
    store     text NOT NULL,
    fenced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (worker, store)
);

CREATE TABLE coordinator.units (
    seq              bigint PRIMARY KEY,
    id               text COLLATE "C" NOT NULL UNIQUE,
    digest           text NOT NULL,
    status           text NOT NULL,
    worker           bigint NOT NULL,
    mapping          text NOT NULL,
    plan             bytea NOT NULL,
    stores           text[] NOT NULL,      -- those outside the journal's own database
    received_at      timestamptz NOT NULL,
    deadline_at      timestamptz NOT NULL,
    topic            text NOT NULL,
    partition        int NOT NULL,
    "offset"         bigint NOT NULL,
    metadata         bytea,
    reply_to         text,
    traceparent      text,
    cancel_requested text,                 -- the reason; '' when none was given
    cause            json,                 -- why it is compensating or parked
    problem          json,                 -- why it is parked; json, since jsonb takes no \u0000
    outcome          bytea,                -- the published value, once there is one
    finished_at      timestamptz,
    swept            boolean NOT NULL DEFAULT false
) WITH (fillfactor = 60);

CREATE INDEX units_open ON coordinator.units (worker, seq)
    WHERE status IN ('accepted', 'compensating', 'parked');
CREATE INDEX units_cancelled ON coordinator.units (worker)
    WHERE status = 'accepted' AND cancel_requested IS NOT NULL;
CREATE INDEX units_parked ON coordinator.units (seq) WHERE status = 'parked';
CREATE INDEX units_unswept ON coordinator.units (finished_at)
    WHERE finished_at IS NOT NULL AND NOT swept;
CREATE INDEX units_finished ON coordinator.units (finished_at) WHERE finished_at IS NOT NULL;

-- First come first served by seq, per entity key (I5).
CREATE TABLE coordinator.locks (
    entity    text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    seq       bigint NOT NULL,
    exclusive boolean NOT NULL,
    PRIMARY KEY (entity, key, seq)
);
CREATE INDEX locks_seq ON coordinator.locks (seq);

CREATE TABLE coordinator.positions (
    topic       text COLLATE "C" NOT NULL,
    partition   int NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- Submissions whose id was known already: remembered until they are answered (F4).
CREATE TABLE coordinator.newcomers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq         bigint NOT NULL,
    digest      text,                      -- null: a cancel of a final unit, answered alike
    topic       text NOT NULL,
    partition   int NOT NULL,
    "offset"    bigint NOT NULL,
    metadata    bytea,
    reply_to    text,
    traceparent text,
    received_at timestamptz NOT NULL
);
CREATE INDEX newcomers_seq ON coordinator.newcomers (seq);

-- One row per journal transaction: all messages of its batch, packed.
CREATE TABLE coordinator.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    messages   bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Messages of a topic that refuses, in their order.
CREATE TABLE coordinator.outbox_aside (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text NOT NULL,
    message    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outbox_aside_topic ON coordinator.outbox_aside (topic, id);

CREATE TABLE coordinator.relay (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    worker     bigint,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO coordinator.relay DEFAULT VALUES;

-- What a person did, and why.
CREATE TABLE coordinator.audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    who    text NOT NULL,
    action text NOT NULL,
    unit   text,
    reason text
);

-- Refuses for good once the worker is fenced, and holds off a takeover until we have committed.
CREATE FUNCTION coordinator.hold_fence(p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM coordinator.workers WHERE id = p_worker AND NOT fenced FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker % is fenced', p_worker USING ERRCODE = 'CF001';
    END IF;
END $$;

-- Lets the takeovers that this worker does wait for each other, and `new_epoch` for them.
CREATE FUNCTION coordinator.hold_takeover(p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('coordinator.takeover', p_worker));
END $$;

-- A new epoch: whatever admission of this worker is still on its way is done now or never, and a
-- takeover by it whose answer was lost has ended.
CREATE FUNCTION coordinator.new_epoch(p_worker bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM coordinator.hold_takeover(p_worker);
    PERFORM pg_advisory_xact_lock(hashtext('coordinator.admission'));
    PERFORM coordinator.hold_fence(p_worker);
    UPDATE coordinator.workers SET epoch = epoch + 1 WHERE id = p_worker
    RETURNING epoch INTO v_epoch;
    RETURN v_epoch;
END $$;

-- Admission of one batch, in one statement and one transaction. It is PL/pgSQL because each of
-- its statements takes a snapshot of its own, and all but the first must come after the lock.
--
-- p_*: partitions whose position moves; u_*: units; l_*: lock requests; c_*: cancels, each with the
-- number of units that stand before it in the batch. `u_at`, `c_at`: 1-based index of the
-- partition. `l_unit`, and the ordinals that are returned: 1-based index of the unit.
CREATE FUNCTION coordinator.admit(
    p_worker bigint, p_epoch bigint, p_mapping text,
    p_topics text[], p_numbers int[], p_expected bigint[], p_next bigint[], p_answers bytea[],
    u_at int[], u_offset bigint[], u_id text[], u_digest text[], u_timeout_ms bigint[],
    u_plan bytea[], u_stores text[], u_metadata bytea[], u_reply_to text[], u_traceparent text[],
    l_unit int[], l_entity text[], l_key text[], l_exclusive boolean[],
    c_at int[], c_after int[], c_offset bigint[], c_id text[], c_reason text[], c_reply_to text[],
    OUT admitted_at timestamptz, OUT lost int[], OUT base bigint, OUT admitted int[],
    OUT foreign_waits int[], OUT newcomers int, OUT cancelled bigint[], OUT cancel_ignored text[],
    OUT cancel_unknown text[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_kept int[];
    v_units int := coalesce(array_length(u_id, 1), 0);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('coordinator.admission'));
    PERFORM coordinator.hold_fence(p_worker);
    -- The worker has given this call up and looked at what it owns since: it must not happen now.
    PERFORM 1 FROM coordinator.workers WHERE id = p_worker AND epoch = p_epoch;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'admission of an earlier epoch' USING ERRCODE = 'CF002';
    END IF;
    admitted_at := clock_timestamp();

    WITH wanted AS (
        SELECT * FROM unnest(p_topics, p_numbers, p_expected, p_next)
            WITH ORDINALITY AS w(topic, number, expected, next, at)
    ), moved AS (
        INSERT INTO coordinator.positions AS held (topic, partition, next_offset)
        SELECT topic, number, next FROM wanted WHERE expected IS NULL
        ON CONFLICT (topic, partition) DO NOTHING
        RETURNING topic, partition
    ), advanced AS (
        UPDATE coordinator.positions AS held SET next_offset = w.next FROM wanted w
        WHERE held.topic = w.topic AND held.partition = w.number
          AND held.next_offset = w.expected
        RETURNING held.topic, held.partition
    ), kept AS (SELECT * FROM moved UNION ALL SELECT * FROM advanced)
    SELECT array_agg(w.at::int) FILTER (WHERE k.topic IS NOT NULL),
           array_agg(w.at::int) FILTER (WHERE k.topic IS NULL)
    INTO v_kept, lost
    FROM wanted w LEFT JOIN kept k ON k.topic = w.topic AND k.partition = w.number;
    v_kept := coalesce(v_kept, '{}');

    INSERT INTO coordinator.outbox (messages)
    SELECT a.messages FROM unnest(p_answers) WITH ORDINALITY AS a(messages, at)
    WHERE a.messages IS NOT NULL AND a.at::int = ANY (v_kept) ORDER BY a.at;

    IF v_units > 0 THEN
        UPDATE coordinator.journal SET last_seq = last_seq + v_units
        RETURNING last_seq - v_units INTO base;

        WITH added AS (
            INSERT INTO coordinator.units (seq, id, digest, status, worker, mapping, plan, stores,
                received_at, deadline_at, topic, partition, "offset", metadata, reply_to,
                traceparent)
            SELECT base + u.at, u.id, u.digest, 'accepted', p_worker, p_mapping, u.plan,
                string_to_array(nullif(u.stores, ''), ',') || '{}'::text[],
                admitted_at, admitted_at + u.timeout_ms * interval '1 millisecond',
                p_topics[u.part], p_numbers[u.part], u.off, u.metadata, u.reply_to,
                u.traceparent
            FROM unnest(u_at, u_offset, u_id, u_digest, u_timeout_ms, u_plan, u_stores,
                        u_metadata, u_reply_to, u_traceparent)
                WITH ORDINALITY AS u(part, off, id, digest, timeout_ms, plan, stores, metadata,
                                     reply_to, traceparent, at)
            WHERE u.part = ANY (v_kept)
            ORDER BY u.at
            ON CONFLICT (id) DO NOTHING
            RETURNING seq
        )
        SELECT coalesce(array_agg((seq - base)::int ORDER BY seq), '{}') INTO admitted FROM added;

        IF coalesce(array_length(admitted, 1), 0) < v_units THEN
            WITH known AS (
                INSERT INTO coordinator.newcomers (seq, digest, topic, partition, "offset",
                    metadata, reply_to, traceparent, received_at)
                SELECT f.seq, u.digest, p_topics[u.part], p_numbers[u.part], u.off, u.metadata,
                    u.reply_to, u.traceparent, admitted_at
                FROM unnest(u_at, u_offset, u_id, u_digest, u_metadata, u_reply_to, u_traceparent)
                    WITH ORDINALITY AS u(part, off, id, digest, metadata, reply_to, traceparent,
                                         at)
                JOIN coordinator.units f ON f.id = u.id
                WHERE u.part = ANY (v_kept) AND NOT u.at::int = ANY (admitted)
                ORDER BY u.at
                RETURNING 1
            )
            SELECT count(*) INTO newcomers FROM known;
        END IF;

        SELECT coalesce(array_agg(DISTINCT n.unit), '{}') INTO foreign_waits
        FROM unnest(l_unit, l_entity, l_key, l_exclusive) AS n(unit, entity, key, exclusive)
        JOIN coordinator.locks e
          ON e.entity = n.entity AND e.key = n.key AND (e.exclusive OR n.exclusive)
        JOIN coordinator.units o ON o.seq = e.seq AND o.worker <> p_worker
        WHERE n.unit = ANY (admitted);

        INSERT INTO coordinator.locks (entity, key, seq, exclusive)
        SELECT n.entity, n.key, base + n.unit, n.exclusive
        FROM unnest(l_unit, l_entity, l_key, l_exclusive) AS n(unit, entity, key, exclusive)
        WHERE n.unit = ANY (admitted);
    END IF;

    IF array_length(c_id, 1) > 0 THEN
        SELECT k.cancelled, k.ignored, k.unknown FROM coordinator.cancel_known(
            p_worker, p_topics, p_numbers, v_kept, coalesce(base, 4611686018427387904),
            admitted_at, c_at, c_after, c_offset, c_id, c_reason, c_reply_to) k
        INTO cancelled, cancel_ignored, cancel_unknown;
    END IF;
END $$;

-- Cancels of units that were admitted before them, in this batch or earlier (F8).
CREATE FUNCTION coordinator.cancel_known(
    p_worker bigint, p_topics text[], p_numbers int[], p_kept int[], p_base bigint,
    p_now timestamptz,
    c_at int[], c_after int[], c_offset bigint[], c_id text[], c_reason text[],
    c_reply_to text[],
    OUT cancelled bigint[], OUT ignored text[], OUT unknown text[]
) LANGUAGE plpgsql AS $$
BEGIN
    WITH asked AS (
        -- The first that finds its unit counts, also when both came in one batch.
        SELECT DISTINCT ON (f.seq) f.seq, c.reason
        FROM unnest(c_at, c_after, c_id, c_reason)
            WITH ORDINALITY AS c(part, after, id, reason, at)
        JOIN coordinator.units f ON f.id = c.id AND f.seq <= p_base + c.after
        WHERE c.part = ANY (p_kept) ORDER BY f.seq, c.at
    ), marked AS (
        UPDATE coordinator.units u SET cancel_requested = coalesce(a.reason, '') FROM asked a
        WHERE u.seq = a.seq AND u.status = 'accepted' AND u.cancel_requested IS NULL
        RETURNING u.seq, u.worker
    )
    SELECT coalesce(array_agg(seq) FILTER (WHERE worker = p_worker), '{}') INTO cancelled
    FROM marked;

    -- A statement of its own: it must see what became of a row that the update had to wait for.
    INSERT INTO coordinator.newcomers (seq, topic, partition, "offset", reply_to, received_at)
    SELECT u.seq, p_topics[c.part], p_numbers[c.part], c.off, c.reply_to, p_now
    FROM unnest(c_at, c_after, c_offset, c_id, c_reply_to)
        WITH ORDINALITY AS c(part, after, off, id, reply_to, at)
    JOIN coordinator.units u
      ON u.id = c.id AND u.finished_at IS NOT NULL AND u.seq <= p_base + c.after
    WHERE c.part = ANY (p_kept) ORDER BY c.at;

    SELECT coalesce(array_agg(DISTINCT c.id) FILTER (WHERE u.status IN ('compensating', 'parked')),
                    '{}'),
           coalesce(array_agg(DISTINCT c.id) FILTER (WHERE u.seq IS NULL), '{}')
    INTO ignored, unknown
    FROM unnest(c_at, c_after, c_id) AS c(part, after, id)
    LEFT JOIN coordinator.units u ON u.id = c.id AND u.seq <= p_base + c.after
    WHERE c.part = ANY (p_kept);
END $$;

-- The first statement of a pivot: refuse when fenced, lock the rows of the units in order, and
-- tell how each stands on the journal's clock.
CREATE FUNCTION coordinator.hold_units(p_worker bigint, p_seqs bigint[])
RETURNS TABLE (seq bigint, status text, cancel_requested text, cause json, problem json,
               late boolean, held_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM coordinator.hold_fence(p_worker);
    RETURN QUERY
        WITH held AS (
            SELECT u.seq, u.status, u.cancel_requested, u.cause, u.problem, u.deadline_at
            FROM coordinator.units u
            WHERE u.seq = ANY (p_seqs) AND u.worker = p_worker ORDER BY u.seq FOR UPDATE
        )
        SELECT h.seq, h.status, h.cancel_requested, h.cause, h.problem,
               h.deadline_at <= clock_timestamp(), clock_timestamp()
        FROM held h;
END $$;

-- The last statement of a journal transaction that decides: statuses by compare-and-set, locks of
-- what ended released, messages into the outbox. Gives how many rows changed, which the caller
-- checks against what it meant to change (rule 2), and the outbox row.
CREATE FUNCTION coordinator.conclude(
    p_worker bigint, p_seqs bigint[], p_from text[], p_to text[], p_causes json[],
    p_problems json[], p_outcomes bytea[], p_finished_at timestamptz, p_messages bytea,
    OUT changed int, OUT outbox_row bigint
) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE coordinator.units u
    SET status = w.to_status,
        cause = coalesce(w.cause, u.cause),
        problem = w.problem,
        outcome = coalesce(w.outcome, u.outcome),
        finished_at = CASE WHEN w.to_status IN ('committed', 'rejected', 'compensated')
                           THEN p_finished_at END,
        swept = (w.to_status IN ('committed', 'rejected', 'compensated') AND u.stores = '{}')
    FROM unnest(p_seqs, p_from, p_to, p_causes, p_problems, p_outcomes)
        AS w(seq, from_status, to_status, cause, problem, outcome)
    WHERE u.seq = w.seq AND u.worker = p_worker AND u.status = w.from_status;
    GET DIAGNOSTICS changed = ROW_COUNT;

    DELETE FROM coordinator.locks l USING unnest(p_seqs, p_to) AS w(seq, to_status)
    WHERE l.seq = w.seq AND w.to_status IN ('committed', 'rejected', 'compensated');

    IF p_messages IS NOT NULL THEN
        INSERT INTO coordinator.outbox (messages) VALUES (p_messages)
        RETURNING id INTO outbox_row;
    END IF;
END $$;
