-- Cancels that may end units of some topics only.
--
-- An admission like ``coordinator.admit``, with one more array: for each cancel the topics that it
-- may speak for, separated by commas, or null for any. A cancel of a unit of another topic is left
-- out, as if the unit were unknown: it marks nothing and is answered by nothing (F8). Which topic a
-- unit is of is asked under the lock of admissions, so that none is admitted in between; a unit of
-- this batch counts by its own topic, if it is not one that was known already.
CREATE FUNCTION coordinator.admit_bounded(
    p_worker bigint, p_epoch bigint, p_mapping text,
    p_topics text[], p_numbers int[], p_expected bigint[], p_next bigint[], p_answers bytea[],
    u_at int[], u_offset bigint[], u_id text[], u_digest text[], u_timeout_ms bigint[],
    u_plan bytea[], u_stores text[], u_metadata bytea[], u_reply_to text[], u_traceparent text[],
    l_unit int[], l_entity text[], l_key text[], l_exclusive boolean[],
    c_at int[], c_after int[], c_offset bigint[], c_id text[], c_reason text[], c_reply_to text[],
    c_topics text[],
    OUT admitted_at timestamptz, OUT lost int[], OUT base bigint, OUT admitted int[],
    OUT foreign_waits int[], OUT newcomers int, OUT cancelled bigint[], OUT cancel_ignored text[],
    OUT cancel_unknown text[], OUT cancel_forbidden int[]
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('coordinator.admission'));

    WITH arriving AS (
        SELECT DISTINCT ON (u.id) u.id, p_topics[u.part] AS topic, u.at
        FROM unnest(u_at, u_id) WITH ORDINALITY AS u(part, id, at) ORDER BY u.id, u.at
    )
    SELECT coalesce(array_agg(c.at::int ORDER BY c.at), '{}') INTO cancel_forbidden
    FROM unnest(c_id, c_after, c_topics) WITH ORDINALITY AS c(id, after, topics, at)
    LEFT JOIN coordinator.units f ON f.id = c.id
    LEFT JOIN arriving a ON a.id = c.id AND a.at <= c.after
    WHERE NOT coalesce(f.topic, a.topic) = ANY (string_to_array(c.topics, ','));

    SELECT d.admitted_at, d.lost, d.base, d.admitted, d.foreign_waits, d.newcomers, d.cancelled,
           d.cancel_ignored, d.cancel_unknown
    FROM (
        SELECT array_agg(c.part ORDER BY c.at) AS part, array_agg(c.after ORDER BY c.at) AS after,
               array_agg(c.off ORDER BY c.at) AS off, array_agg(c.id ORDER BY c.at) AS id,
               array_agg(c.reason ORDER BY c.at) AS reason,
               array_agg(c.reply_to ORDER BY c.at) AS reply_to
        FROM unnest(c_at, c_after, c_offset, c_id, c_reason, c_reply_to)
            WITH ORDINALITY AS c(part, after, off, id, reason, reply_to, at)
        WHERE NOT c.at::int = ANY (cancel_forbidden)
    ) k, coordinator.admit(
        p_worker, p_epoch, p_mapping, p_topics, p_numbers, p_expected, p_next, p_answers,
        u_at, u_offset, u_id, u_digest, u_timeout_ms, u_plan, u_stores, u_metadata, u_reply_to,
        u_traceparent, l_unit, l_entity, l_key, l_exclusive,
        k.part, k.after, k.off, k.id, k.reason, k.reply_to) d
    INTO admitted_at, lost, base, admitted, foreign_waits, newcomers, cancelled, cancel_ignored,
         cancel_unknown;

    -- The records of a partition that was lost are read again, by whoever has it.
    cancel_forbidden := ARRAY(
        SELECT at FROM unnest(cancel_forbidden) AS at
        WHERE lost IS NULL OR NOT c_at[at] = ANY (lost));
END $$;
