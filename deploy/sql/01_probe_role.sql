-- The role with which Pointsman looks at a cluster: who is primary, how far each replica has replayed.
-- Run as a superuser on the primary, in the database named by "probe": {"database": …} (replicas receive it by replication):
--
--     psql -X -d postgres -f 01_probe_role.sql
--     psql -X -d postgres -v probe_role=router_probe -v probe_password="$(cat probe.pw)" -f 01_probe_role.sql
--
--   probe_role      default "pointsman"
--   probe_password  when not given the password stays as it is; set it with \password pointsman (the clear text then
--                   never leaves psql). A ready SCRAM-SHA-256 verifier is accepted too.
--
-- Can be run again at any time. It takes nothing away from a role that exists already, and it needs no extension.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?probe_role}
\else
  \set probe_role pointsman
\endif

BEGIN;

-- Whoever runs this may have set anything; nothing below may be looked up outside pg_catalog.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
-- Pointsman and PgBouncer need a SCRAM verifier, whatever the server's default is.
SET LOCAL password_encryption = 'scram-sha-256';
-- A password given below must not reach the server's log, not even when a statement fails.
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I LOGIN', :'probe_role')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'probe_role')
\gexec

ALTER ROLE :"probe_role" LOGIN;
ALTER ROLE :"probe_role" SET search_path = '';

\if :{?probe_password}
ALTER ROLE :"probe_role" PASSWORD :'probe_password';
\endif

-- pg_stat_wal_receiver shows its columns only to members of pg_read_all_stats, which pg_monitor contains.
GRANT pg_monitor TO :"probe_role";

-- A stock PostgreSQL lets everyone run the rest; where an administrator has revoked that from PUBLIC, give it back to this role alone.
-- pg_get_wal_replay_pause_state() exists since PostgreSQL 14, so the list is matched by name instead of being resolved.
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, :'probe_role')
  FROM pg_proc AS p
 WHERE p.pronamespace = 'pg_catalog'::regnamespace
   AND p.proname IN ('pg_is_in_recovery', 'pg_current_wal_lsn', 'pg_walfile_name', 'pg_last_wal_receive_lsn',
                     'pg_last_wal_replay_lsn', 'pg_last_xact_replay_timestamp', 'pg_is_wal_replay_paused',
                     'pg_get_wal_replay_pause_state', 'pg_stat_get_wal_receiver', 'pg_control_system',
                     'pg_control_checkpoint', 'pg_wal_lsn_diff')
   AND NOT has_function_privilege(:'probe_role', p.oid, 'EXECUTE')
 ORDER BY p.oid
\gexec

SELECT format('GRANT SELECT ON pg_catalog.pg_stat_wal_receiver TO %I', :'probe_role')
 WHERE NOT has_table_privilege(:'probe_role', 'pg_catalog.pg_stat_wal_receiver', 'SELECT')
\gexec

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'probe_role')
 WHERE NOT has_database_privilege(:'probe_role', current_database(), 'CONNECT')
\gexec

COMMIT;

SELECT rolsuper AS probe_is_superuser,
       EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m
                WHERE m.member = r.oid AND m.roleid = 'pg_monitor'::pg_catalog.regrole) AND NOT rolinherit AS probe_does_not_inherit
  FROM pg_catalog.pg_roles AS r WHERE rolname = :'probe_role'
\gset
\if :probe_is_superuser
  \warn 'warning: role' :probe_role 'is a superuser. Pointsman works with it and warns at every start; a role of its own is safer.'
\endif
\if :probe_does_not_inherit
  \warn 'warning: role' :probe_role 'is NOINHERIT, so its membership in pg_monitor has no effect: ALTER ROLE' :probe_role 'INHERIT'
\endif
\echo 'Probe role' :probe_role 'is ready in database' :DBNAME
