-- What a journal forgets, beside units: mappings, workers, audit rows.

-- Which mapping a worker plans with: it is needed as long as the worker lives.
ALTER TABLE coordinator.workers ADD COLUMN mapping text;

-- Forget swept units that are final for longer than the retention; how many.
--
-- Under the lock of admissions, taken before the statement that looks for newcomers: an admission
-- that finds a duplicate of a unit remembers it in a statement of its own, and the unit must still
-- be there (F4). What to look at is chosen before, so that the lock is held for a moment only.
CREATE FUNCTION coordinator.forget(p_worker bigint, p_retention_days float8, p_limit int)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_seqs bigint[];
    v_gone int;
BEGIN
    v_seqs := ARRAY(
        SELECT u.seq FROM coordinator.units u
        WHERE u.finished_at < clock_timestamp() - p_retention_days * interval '1 day' AND u.swept
          AND NOT EXISTS (SELECT 1 FROM coordinator.newcomers n WHERE n.seq = u.seq)
        ORDER BY u.finished_at LIMIT p_limit);
    IF v_seqs = '{}' THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('coordinator.admission'));
    PERFORM coordinator.hold_fence(p_worker);
    DELETE FROM coordinator.units u
    WHERE u.seq = ANY (v_seqs)
      AND NOT EXISTS (SELECT 1 FROM coordinator.newcomers n WHERE n.seq = u.seq);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END $$;

-- Forget what persons did before the retention, and mappings that no unit and no living worker
-- needs. A mapping that is a day old at most may be about to be used.
CREATE FUNCTION coordinator.forget_history(
    p_worker bigint, p_retention_days float8, p_limit int
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM coordinator.hold_fence(p_worker);
    DELETE FROM coordinator.audit WHERE id IN (
        SELECT a.id FROM coordinator.audit a
        WHERE a.at < clock_timestamp() - p_retention_days * interval '1 day'
        ORDER BY a.id LIMIT p_limit);
    DELETE FROM coordinator.mappings m
    WHERE m.created_at < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (
        SELECT 1 FROM coordinator.workers w JOIN coordinator.heartbeats h ON h.worker = w.id
        WHERE coalesce(w.mapping, m.fingerprint) = m.fingerprint)
      AND NOT EXISTS (SELECT 1 FROM coordinator.units u WHERE u.mapping = m.fingerprint);
END $$;
