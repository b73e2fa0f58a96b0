-- What a pivot needs that was decided on rows as they were read before, and that holds only if
-- nothing has changed since: one statement, and so one transaction, instead of seven.

-- Compressing what stays for milliseconds takes longer than writing it.
ALTER TABLE coordinator.outbox ALTER messages SET STORAGE EXTERNAL;

-- End units as it was foretold. `p_written` rows were to be written, `p_true` of `p_found` became
-- what they were expected to become. `p_causes` may be shorter than the others. Refuses with CF003 when rows or units are not as they were,
-- and with CF004 when the store has made something else of what was written.
CREATE FUNCTION coordinator.conclude_foretold(
    p_worker bigint, p_written bigint, p_found bigint, p_true bigint,
    p_seqs bigint[], p_to text[], p_causes json[], p_outcomes bytea[], p_finished_at timestamptz,
    p_messages bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_changed int;
    v_outbox_row bigint;
BEGIN
    IF p_found <> p_written THEN
        RAISE EXCEPTION '% rows of % are as they were', p_found, p_written USING ERRCODE = 'CF003';
    ELSIF p_true <> p_written THEN
        RAISE EXCEPTION '% rows of % became what was foretold', p_true, p_written
            USING ERRCODE = 'CF004';
    END IF;
    PERFORM coordinator.hold_fence(p_worker);

    UPDATE coordinator.units u
    SET status = w.to_status,
        cause = w.cause,
        outcome = w.outcome,
        finished_at = CASE WHEN w.to_status <> 'compensating' THEN p_finished_at END,
        swept = (w.to_status <> 'compensating' AND u.stores = '{}')
    FROM unnest(p_seqs, p_to, p_causes, p_outcomes) AS w(seq, to_status, cause, outcome)
    WHERE u.seq = w.seq AND u.worker = p_worker AND u.status = 'accepted'
      AND (w.to_status <> 'committed'
           OR u.cancel_requested IS NULL AND u.deadline_at > clock_timestamp());
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    IF v_changed <> cardinality(p_seqs) THEN
        RAISE EXCEPTION '% units of % are as they were', v_changed, cardinality(p_seqs)
            USING ERRCODE = 'CF003';
    END IF;

    DELETE FROM coordinator.locks l USING unnest(p_seqs, p_to) AS w(seq, to_status)
    WHERE l.seq = w.seq AND w.to_status <> 'compensating';

    IF p_messages IS NOT NULL THEN
        INSERT INTO coordinator.outbox (messages) VALUES (p_messages)
        RETURNING id INTO v_outbox_row;
    END IF;
    RETURN v_outbox_row;
END $$;
