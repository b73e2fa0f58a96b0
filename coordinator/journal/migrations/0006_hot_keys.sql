-- Who waits for another worker is found once per key. Before, each newcomer was held against each
-- lock of its key, so that the cost of an admission grew with the square of the units that wait
-- for one key. The rest of the function is as it was.

CREATE OR REPLACE FUNCTION coordinator.admit(
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
        JOIN (
            SELECT e.entity, e.key, bool_or(e.exclusive) AS exclusive
            FROM (SELECT DISTINCT d.entity, d.key FROM unnest(l_entity, l_key) AS d(entity, key)) k
            JOIN coordinator.locks e ON e.entity = k.entity AND e.key = k.key
            JOIN coordinator.units o ON o.seq = e.seq AND o.worker <> p_worker
            GROUP BY e.entity, e.key
        ) f ON f.entity = n.entity AND f.key = n.key AND (f.exclusive OR n.exclusive)
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
