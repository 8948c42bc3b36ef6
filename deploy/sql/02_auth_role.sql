-- The role with which Pointsman reads SCRAM verifiers ("auth": {"verifiers": "lookup"}). No superuser is involved at run time:
-- the role may execute one function, and that function answers with one row about one login role.
-- Run as a superuser on the primary, in EVERY database that the look-up connects to ("probe": {"database": …}): the function and
-- the privileges on pg_authid's columns belong to a database, although roles belong to the cluster.
--
--     psql -X -d postgres -f 02_auth_role.sql
--     psql -X -d postgres -v auth_role=pointsman -f 02_auth_role.sql          the probe role looks up verifiers too
--
--   auth_role      default "pointsman_auth"
--   auth_password  when not given the password stays as it is; set it with \password pointsman_auth
--   owner_role     default "pointsman_owner": owns the function, cannot log in
--
-- Verifiers of superusers and of REPLICATION roles are not given out unless a superuser has listed the role:
--
--     INSERT INTO pointsman.allowed_privileged_roles (role_name) VALUES ('replicator');
--
-- Can be run again at any time; the list and further grants of the function are kept.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?auth_role}
\else
  \set auth_role pointsman_auth
\endif
\if :{?owner_role}
\else
  \set owner_role pointsman_owner
\endif

BEGIN;

SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL password_encryption = 'scram-sha-256';
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_error_statement = 'panic';

-- Everything below is safe only if nobody but a superuser can replace it. Refuse to build on what somebody else has put there.
SELECT set_config('pointsman_setup.owner_role', :'owner_role', true) AS setup, set_config('pointsman_setup.auth_role', :'auth_role', true)
\g /dev/null
DO $check$
DECLARE
    wrong text;
BEGIN
    IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'this script must be run by a superuser, and % is none', current_user;
    END IF;
    IF pg_catalog.current_setting('pointsman_setup.owner_role') = pg_catalog.current_setting('pointsman_setup.auth_role') THEN
        RAISE EXCEPTION 'owner_role and auth_role must be two roles: the one that logs in must not be able to read pg_authid';
    END IF;

    SELECT pg_catalog.format('schema pointsman belongs to %I', r.rolname) INTO wrong
      FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
     WHERE n.nspname = 'pointsman' AND NOT r.rolsuper;
    IF wrong IS NULL THEN
        -- Who may create there could add a get_verifier() of another argument type that fits the call better.
        SELECT 'others than its owner may create in schema pointsman' INTO wrong
          FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS acl
         WHERE n.nspname = 'pointsman' AND acl.privilege_type = 'CREATE' AND acl.grantee <> n.nspowner;
    END IF;
    IF wrong IS NULL THEN
        SELECT pg_catalog.format('relation pointsman.%I belongs to %I or is not a plain table', c.relname, r.rolname) INTO wrong
          FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
         WHERE c.relnamespace = pg_catalog.to_regnamespace('pointsman') AND c.relname = 'allowed_privileged_roles'
           AND (NOT r.rolsuper OR c.relkind <> 'r' OR c.relrowsecurity OR c.relhasrules OR c.relhastriggers);
    END IF;
    IF wrong IS NULL THEN
        SELECT pg_catalog.format('function %s belongs to %I', p.oid::pg_catalog.regprocedure, r.rolname) INTO wrong
          FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_roles AS r ON r.oid = p.proowner
         WHERE p.pronamespace = pg_catalog.to_regnamespace('pointsman') AND p.proname = 'get_verifier'
           AND NOT r.rolsuper AND r.rolname <> pg_catalog.current_setting('pointsman_setup.owner_role');
    END IF;
    IF wrong IS NULL THEN
        -- In PostgreSQL 16+ a role created by a CREATEROLE user has that user as a member, who could then become the owner.
        SELECT pg_catalog.format('role %I can log in, is a superuser, or has members', r.rolname) INTO wrong
          FROM pg_catalog.pg_roles AS r
         WHERE r.rolname = pg_catalog.current_setting('pointsman_setup.owner_role')
           AND (r.rolcanlogin OR r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid));
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%, so verifiers would not be safe there', wrong
              USING HINT = 'Find out who made it. Remove it, or give it to a superuser, and run this script again.';
    END IF;
END
$check$;

SELECT format('CREATE ROLE %I NOLOGIN', :'owner_role')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner_role')
\gexec
SELECT format('CREATE ROLE %I LOGIN', :'auth_role')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'auth_role')
\gexec

ALTER ROLE :"auth_role" LOGIN;
ALTER ROLE :"auth_role" SET search_path = '';
\if :{?auth_password}
ALTER ROLE :"auth_role" PASSWORD :'auth_password';
\endif

CREATE SCHEMA IF NOT EXISTS pointsman;
REVOKE ALL ON SCHEMA pointsman FROM PUBLIC;
COMMENT ON SCHEMA pointsman IS 'Pointsman: look-up of SCRAM verifiers (deploy/sql/02_auth_role.sql)';

CREATE TABLE IF NOT EXISTS pointsman.allowed_privileged_roles (
    role_name name PRIMARY KEY
);
REVOKE ALL ON TABLE pointsman.allowed_privileged_roles FROM PUBLIC;
COMMENT ON TABLE pointsman.allowed_privileged_roles IS
    'Superuser and REPLICATION roles that may log in through Pointsman; without a row here their verifiers are not given out';

-- What the owner of the function may see: these columns, this list, nothing else.
GRANT SELECT (rolname, rolpassword, rolcanlogin, rolvaliduntil, rolsuper, rolreplication) ON pg_catalog.pg_authid TO :"owner_role";
GRANT USAGE ON SCHEMA pointsman TO :"owner_role";
GRANT SELECT ON TABLE pointsman.allowed_privileged_roles TO :"owner_role";

-- The name is compared as text: a cast to "name" would cut it at 63 bytes and a longer name would come to mean another role.
-- An md5 hash is as good as a password where md5 is still accepted, so only its presence is told ('md5'), never the hash.
CREATE OR REPLACE FUNCTION pointsman.get_verifier(role_name text)
    RETURNS TABLE (rolname text, verifier text, valid_until timestamp with time zone, can_login boolean)
    LANGUAGE sql
    STABLE
    STRICT
    SECURITY DEFINER
    ROWS 1
    SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT a.rolname::pg_catalog.text,
           CASE WHEN a.rolpassword OPERATOR(pg_catalog.~~) 'SCRAM-SHA-256$%' THEN a.rolpassword
                WHEN a.rolpassword OPERATOR(pg_catalog.~~) 'md5%' THEN 'md5'::pg_catalog.text
           END,
           a.rolvaliduntil,
           a.rolcanlogin
      FROM pg_catalog.pg_authid AS a
     WHERE a.rolname OPERATOR(pg_catalog.=) get_verifier.role_name
       AND a.rolcanlogin
       AND (NOT (a.rolsuper OR a.rolreplication)
            OR EXISTS (SELECT 1
                         FROM pointsman.allowed_privileged_roles AS allowed
                        WHERE allowed.role_name OPERATOR(pg_catalog.=) a.rolname))
$function$;
REVOKE ALL ON FUNCTION pointsman.get_verifier(text) FROM PUBLIC;
ALTER FUNCTION pointsman.get_verifier(text) OWNER TO :"owner_role";
COMMENT ON FUNCTION pointsman.get_verifier(text) IS
    'One row about one login role, or none; run by Pointsman before it lets a client through';

GRANT USAGE ON SCHEMA pointsman TO :"auth_role";
GRANT EXECUTE ON FUNCTION pointsman.get_verifier(text) TO :"auth_role";

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'auth_role')
 WHERE NOT has_database_privilege(:'auth_role', current_database(), 'CONNECT')
\gexec

COMMIT;

SELECT rolsuper AS auth_is_superuser FROM pg_catalog.pg_roles WHERE rolname = :'auth_role'
\gset
\if :auth_is_superuser
  \warn 'warning: role' :auth_role 'is a superuser, so the function protects nothing: give the look-up a role of its own'
\endif
\echo 'Look-up role' :auth_role 'is ready in database' :DBNAME
