-- The PostgreSQL half of the sample shop (store "ledger" of config/coordinator.toml).
--
--   psql "$DSN" -v ON_ERROR_STOP=1 -f config/sample/shop.sql
--
-- May be run again: what is there stays. Three constraints are here to be broken: the mapping knows
-- nothing of them, so a unit that breaks one has written to MongoDB already when PostgreSQL refuses
-- it at the pivot, and MongoDB is undone (outcome `compensated`, code `constraint_violated`).

BEGIN;

CREATE TABLE IF NOT EXISTS customers (
    id      bigint PRIMARY KEY,
    name    varchar(200) NOT NULL,
    email   text CONSTRAINT customers_email_taken UNIQUE,               -- 1: somebody else's address
    status  text NOT NULL DEFAULT 'trial',
    since   timestamptz NOT NULL DEFAULT now(),
    version integer NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS accounts (
    id       bigint PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers (id),
    balance  numeric(14,2) NOT NULL DEFAULT 0,
    currency char(3) NOT NULL DEFAULT 'EUR',
    status   text,
    note     text,
    version  integer NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS stock (
    sku      text PRIMARY KEY,
    on_hand  integer NOT NULL DEFAULT 0,
    reserved integer NOT NULL DEFAULT 0,
    shelf    text,
    version  integer NOT NULL DEFAULT 1,
    CONSTRAINT stock_covers_reservations CHECK (reserved <= on_hand),   -- 2: sold what is not there
    -- 3: judged at the end of a unit only, so that one unit may swap two shelves.
    CONSTRAINT stock_shelf_taken UNIQUE (shelf) DEFERRABLE INITIALLY DEFERRED
);

INSERT INTO customers (id, name, email, status) VALUES
    (5, 'Ada Example', 'ada@shop.example', 'active'),
    (6, 'Bo Example', 'bo@shop.example', 'trial'),
    (7, 'Cy Example', NULL, 'closed')
ON CONFLICT DO NOTHING;

INSERT INTO accounts (id, customer, balance, status, note) VALUES
    (42, 5, 100.00, 'active', 'opened by the sample'),
    (43, 6, 20.00, 'active', NULL),
    (44, 7, 0.00, 'closed', NULL)
ON CONFLICT DO NOTHING;

INSERT INTO stock (sku, on_hand, reserved, shelf) VALUES
    ('tea-1', 100, 0, 'A1'),
    ('tea-2', 10, 8, 'A2'),
    ('cup-1', 0, 0, NULL)
ON CONFLICT (sku) DO NOTHING;

COMMIT;
