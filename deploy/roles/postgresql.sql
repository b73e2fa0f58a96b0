-- Run by an administrator, with psql, in the database itself; again after every
-- `coordinator migrate` and every change of the mapping. Then, once:
--   \password coordinator_migrate
--   \password coordinator_run
--   \password coordinator_read
BEGIN;
DO $$ BEGIN
  IF to_regrole('coordinator_migrate') IS NULL THEN
    CREATE ROLE coordinator_migrate LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
  IF to_regrole('coordinator_run') IS NULL THEN
    CREATE ROLE coordinator_run LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
  IF to_regrole('coordinator_read') IS NULL THEN
    CREATE ROLE coordinator_read LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
  IF to_regnamespace('coordinator') IS NULL THEN
    CREATE SCHEMA coordinator AUTHORIZATION coordinator_migrate;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO coordinator_migrate, coordinator_run, coordinator_read', current_database());
END $$;
GRANT USAGE ON SCHEMA coordinator TO coordinator_run, coordinator_read;
-- Our tables and functions: those that are there, and those of later migrations.
ALTER DEFAULT PRIVILEGES FOR ROLE coordinator_migrate REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA coordinator FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE coordinator_migrate IN SCHEMA coordinator
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO coordinator_run;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA coordinator TO coordinator_run;
ALTER DEFAULT PRIVILEGES FOR ROLE coordinator_migrate IN SCHEMA coordinator
  GRANT EXECUTE ON FUNCTIONS TO coordinator_run;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA coordinator TO coordinator_run;
ALTER DEFAULT PRIVILEGES FOR ROLE coordinator_migrate IN SCHEMA coordinator
  GRANT SELECT ON TABLES TO coordinator_read;
GRANT SELECT ON ALL TABLES IN SCHEMA coordinator TO coordinator_read;
-- What the daemon only reads, or only adds to.
DO $$ BEGIN
  IF to_regclass('coordinator.migrations') IS NOT NULL THEN
    REVOKE INSERT, UPDATE, DELETE ON coordinator.migrations FROM coordinator_run;
  END IF;
  IF to_regclass('coordinator.journal') IS NOT NULL THEN
    REVOKE INSERT, DELETE ON coordinator.journal FROM coordinator_run;
  END IF;
  IF to_regclass('coordinator.audit') IS NOT NULL THEN
    REVOKE UPDATE ON coordinator.audit FROM coordinator_run;
  END IF;
  IF to_regclass('coordinator.bookkeeping') IS NOT NULL THEN
    REVOKE INSERT, UPDATE, DELETE ON coordinator.bookkeeping FROM coordinator_run;
  END IF;
END $$;
-- The mapped tables: what their operations need, undo included.
GRANT USAGE ON SCHEMA "public" TO coordinator_run;
REVOKE ALL ON "public"."accounts" FROM coordinator_run;
GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."accounts" TO coordinator_run;
REVOKE ALL ON "public"."customers" FROM coordinator_run;
GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."customers" TO coordinator_run;
REVOKE ALL ON "public"."stock" FROM coordinator_run;
GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."stock" TO coordinator_run;
COMMIT;
-- With these roles set journal.migrate = false: a daemon may make nothing any more.
