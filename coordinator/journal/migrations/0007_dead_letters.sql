-- What persons did with dead letters, so that none is put back twice. By the place and time of the
-- record that the letter was made of: a letter that was published twice is one, and a topic that was
-- made anew begins its offsets again, at another time.

CREATE TABLE coordinator.letters (
    topic        text COLLATE "C" NOT NULL,
    partition    int NOT NULL,
    "offset"     bigint NOT NULL,
    timestamp_ms bigint NOT NULL,
    -- replaying: about to be put back; whoever did it may have died before or after.
    state        text NOT NULL CHECK (state IN ('replaying', 'replayed', 'discarded')),
    who          text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, "offset", timestamp_ms)
);
