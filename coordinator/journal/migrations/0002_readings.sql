-- Who reads which partition, so that a record that ends every process that reads it is found.
-- Written when a partition is assigned or let go, and per record only where one is suspected:
-- reading as usual costs nothing here.

CREATE TABLE coordinator.readings (
    topic         text COLLATE "C" NOT NULL,
    partition     int NOT NULL,
    worker        bigint NOT NULL,         -- one that has not let the partition go
    stood_at      bigint,                  -- where, when another one began; null: it is reading
    marked        bigint,                  -- what it was about to touch
    setting_aside boolean NOT NULL DEFAULT false,
    PRIMARY KEY (topic, partition, worker)
);
CREATE INDEX readings_worker ON coordinator.readings (worker);

-- Begin to read partitions, each from an offset on, where the journal's position is as expected.
-- Others that have not let go stood here; those that stood elsewhere do not matter any more.
-- Returns, for each that was as expected, what is held against the record at that offset.
CREATE FUNCTION coordinator.begin_reading(
    p_worker bigint, p_topics text[], p_numbers int[], p_expected bigint[], p_offsets bigint[]
) RETURNS TABLE (at int, stood int, marked int, setting_aside int, undecided int)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_at int;
    v_held bigint;
BEGIN
    -- What two workers tell of each other must not cross.
    PERFORM pg_advisory_xact_lock(hashtext('coordinator.readings'));
    PERFORM coordinator.hold_fence(p_worker);
    FOR v_at IN 1 .. coalesce(array_length(p_topics, 1), 0) LOOP
        v_held := (SELECT p.next_offset FROM coordinator.positions p
                   WHERE p.topic = p_topics[v_at] AND p.partition = p_numbers[v_at]);
        CONTINUE WHEN v_held IS DISTINCT FROM p_expected[v_at];

        UPDATE coordinator.readings r SET stood_at = p_offsets[v_at]
        WHERE r.topic = p_topics[v_at] AND r.partition = p_numbers[v_at]
          AND r.worker <> p_worker AND r.stood_at IS NULL;
        DELETE FROM coordinator.readings r
        WHERE r.topic = p_topics[v_at] AND r.partition = p_numbers[v_at]
          AND r.worker <> p_worker AND r.stood_at <> p_offsets[v_at];
        INSERT INTO coordinator.readings (topic, partition, worker)
        VALUES (p_topics[v_at], p_numbers[v_at], p_worker)
        ON CONFLICT (topic, partition, worker)
        DO UPDATE SET stood_at = NULL, marked = NULL, setting_aside = false;

        RETURN QUERY
            SELECT v_at, count(*)::int,
                   (count(*) FILTER (WHERE r.marked = r.stood_at))::int,
                   (count(*) FILTER (WHERE r.marked = r.stood_at AND r.setting_aside))::int,
                   (count(*) FILTER (WHERE EXISTS (
                       SELECT 1 FROM coordinator.workers w JOIN coordinator.heartbeats h
                       ON h.worker = w.id WHERE w.id = r.worker AND NOT w.fenced
                       AND h.expires_at >= clock_timestamp())))::int
            FROM coordinator.readings r
            WHERE r.topic = p_topics[v_at] AND r.partition = p_numbers[v_at]
              AND r.worker <> p_worker;
    END LOOP;
END $$;

-- Mark what is about to be touched; false when another worker has begun to read the partition.
CREATE FUNCTION coordinator.mark_reading(
    p_worker bigint, p_topic text, p_number int, p_offset bigint, p_setting_aside boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM coordinator.hold_fence(p_worker);
    UPDATE coordinator.readings r SET marked = p_offset, setting_aside = p_setting_aside
    WHERE r.topic = p_topic AND r.partition = p_number AND r.worker = p_worker
      AND r.stood_at IS NULL;
    RETURN FOUND;
END $$;
