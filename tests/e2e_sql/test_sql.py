"""deploy/sql against a real PostgreSQL 15: a primary and a streaming replica, every statement as the role that will send it."""

import os
import subprocess
import sys

import psycopg
import pytest

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
sys.path.insert(0, os.path.join(_ROOT, "tests", "e2e"))

from harness.certs import Authority  # noqa: E402
from harness.cluster import Node, make_server_folder  # noqa: E402
from harness.system import clean_environment, wait_until  # noqa: E402

PROBE_SQL = os.path.join(_ROOT, "deploy", "sql", "01_probe_role.sql")
AUTH_SQL = os.path.join(_ROOT, "deploy", "sql", "02_auth_role.sql")

PROBE_PASSWORD = "probe 'quoted\" \\ password"
AUTH_PASSWORD = "auth-password"

_ROLES = """
SET password_encryption = 'scram-sha-256';
CREATE ROLE app LOGIN PASSWORD 'app-password';
CREATE ROLE expired LOGIN PASSWORD 'expired-password' VALID UNTIL '2020-01-02 03:04:05+00';
CREATE ROLE sleeping NOLOGIN PASSWORD 'sleeping-password';
CREATE ROLE nopassword LOGIN;
CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'boss-password';
CREATE ROLE repl LOGIN REPLICATION PASSWORD 'repl-password';
CREATE ROLE attacker LOGIN PASSWORD 'attacker-password';
SET password_encryption = 'md5';
CREATE ROLE legacy LOGIN PASSWORD 'legacy-password';
"""

# What a probe asks, as the issue and contract section 4 name it; the second word says where it makes sense.
PROBES = {
    "both": [
        "SELECT pg_catalog.pg_is_in_recovery()",
        "SELECT system_identifier FROM pg_catalog.pg_control_system()",
        "SELECT timeline_id, checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()",
        "SELECT pg_catalog.pg_last_xact_replay_timestamp()",
    ],
    "primary": [
        "SELECT pg_catalog.pg_current_wal_lsn()",
        "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())",
    ],
    "replica": [
        "SELECT pg_catalog.pg_last_wal_receive_lsn()",
        "SELECT pg_catalog.pg_last_wal_replay_lsn()",
        "SELECT pg_catalog.pg_is_wal_replay_paused()",
        "SELECT pg_catalog.pg_get_wal_replay_pause_state()",
    ],
}


class Servers:
    def __init__(self, primary, replica):
        self.primary, self.replica = primary, replica

    def catch_up(self):
        lsn = self.primary.value("SELECT pg_current_wal_lsn()::text")
        wait_until(lambda: self.replica.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)), f"the replica to replay {lsn}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("sql")
    for folder in (scratch, scratch.parent, scratch.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)  # the server's user must be able to pass
    folder = make_server_folder(str(scratch / "s"))
    certificate, key = Authority(str(scratch / "pki")).issue("backend", for_server_user=True, folder=folder)
    primary = Node("pg-0", folder, certificate, key)
    replica = Node("pg-1", folder, certificate, key)
    try:
        primary.initialise().start()
        primary.sql(_ROLES)
        replica.copy_from(primary).start()
        primary.run_script(PROBE_SQL, probe_password=PROBE_PASSWORD)
        primary.run_script(AUTH_SQL, auth_password=AUTH_PASSWORD)
        made = Servers(primary, replica)
        made.catch_up()
        yield made
    finally:
        replica.stop()
        primary.stop()


def connect(node, user, password, database="postgres", **more):
    return psycopg.connect(host="127.0.0.1", port=node.port, user=user, password=password, dbname=database, autocommit=True, **more)


def as_probe(node, **more):
    return connect(node, "pointsman", PROBE_PASSWORD, **more)


def as_auth(node, **more):
    return connect(node, "pointsman_auth", AUTH_PASSWORD, **more)


def look_up(connection, role):
    return connection.execute("SELECT rolname, verifier, valid_until, can_login FROM pointsman.get_verifier(%s)", (role,)).fetchall()


def catalogue_of(node):
    """Everything the scripts make or change, as text: equal before and after a second run."""
    return node.sql("""
        SELECT 'role', rolname::text, pg_catalog.row_to_json(a)::text FROM pg_authid AS a WHERE rolname LIKE 'pointsman%'
        UNION ALL SELECT 'member', member::regrole::text, roleid::regrole::text FROM pg_auth_members
        UNION ALL SELECT 'setting', setrole::regrole::text, setconfig::text FROM pg_db_role_setting
        UNION ALL SELECT 'schema', nspname::text, nspacl::text FROM pg_namespace WHERE nspname = 'pointsman'
        UNION ALL SELECT 'relation', relname::text, relacl::text FROM pg_class WHERE relnamespace = 'pointsman'::regnamespace
        UNION ALL SELECT 'column', attname::text, attacl::text FROM pg_attribute WHERE attrelid = 'pg_authid'::regclass
        UNION ALL SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid) || proacl::text || proowner::regrole::text
                    FROM pg_proc AS p WHERE pronamespace = 'pointsman'::regnamespace
        ORDER BY 1, 2, 3""")


def refused(connection, statement, parameters=None):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement, parameters)


# --- the scripts themselves ---

def test_a_second_run_changes_nothing(servers):
    before = catalogue_of(servers.primary)
    servers.primary.run_script(PROBE_SQL)
    servers.primary.run_script(AUTH_SQL)
    assert catalogue_of(servers.primary) == before


def test_passwords_do_not_reach_the_servers_log(servers):
    primary = servers.primary
    primary.sql("ALTER SYSTEM SET log_statement = 'all'")
    primary.sql("SELECT pg_reload_conf()")
    wait_until(lambda: primary.value("SHOW log_statement") == "all", "log_statement to be on")
    try:
        primary.run_script(PROBE_SQL, probe_role="logged_probe", probe_password="hidden-word-1")
        primary.run_script(AUTH_SQL, auth_role="logged_auth", auth_password="hidden-word-2")
    finally:
        primary.sql("ALTER SYSTEM RESET log_statement")
        primary.sql("SELECT pg_reload_conf()")
    log = primary.log()
    assert "log_statement = 'none'" in log, "the log was on, or this test proves nothing"
    assert "hidden-word" not in log
    primary.sql("DROP OWNED BY logged_auth, logged_probe")
    primary.sql("DROP ROLE logged_auth, logged_probe")


def test_a_password_becomes_a_scram_verifier_even_where_md5_is_the_default(servers):
    primary = servers.primary
    primary.sql("CREATE DATABASE old_default")
    primary.sql("ALTER DATABASE old_default SET password_encryption = 'md5'")
    primary.run_script(PROBE_SQL, database="old_default", probe_role="modern", probe_password="x")
    assert primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'modern'").startswith("SCRAM-SHA-256$")
    primary.sql("DROP DATABASE old_default")
    primary.sql("DROP ROLE modern")


def test_the_probe_role_may_be_the_auth_role_and_names_are_quoted(servers):
    primary = servers.primary
    name = 'One "Role" for both'
    primary.sql("CREATE DATABASE single_role")
    primary.run_script(PROBE_SQL, database="single_role", probe_role=name, probe_password="both")
    primary.run_script(AUTH_SQL, database="single_role", auth_role=name)
    with connect(primary, name, "both", "single_role") as connection:
        assert connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone() == (False,)
        assert look_up(connection, "app")[0][0] == "app"
        refused(connection, "SELECT rolpassword FROM pg_catalog.pg_authid")
    primary.sql("DROP DATABASE single_role")
    primary.sql('DROP ROLE "One ""Role"" for both"')


def test_one_database_is_not_another(servers):
    primary = servers.primary
    primary.sql("CREATE DATABASE elsewhere")
    with as_auth(primary, database="elsewhere") as connection:
        with pytest.raises(psycopg.errors.InvalidSchemaName):
            look_up(connection, "app")
    primary.run_script(AUTH_SQL, database="elsewhere")
    with as_auth(primary, database="elsewhere") as connection:
        assert look_up(connection, "app")[0][0] == "app"
    primary.sql("DROP DATABASE elsewhere")


def run_expecting_refusal(node, script, database, **variables):
    with pytest.raises(AssertionError) as refusal:
        node.run_script(script, database=database, **variables)
    return str(refusal.value)


@pytest.mark.parametrize("trap, complaint", [
    ("CREATE SCHEMA pointsman AUTHORIZATION attacker", "schema pointsman belongs to attacker"),
    ("CREATE SCHEMA pointsman; GRANT CREATE ON SCHEMA pointsman TO attacker", "others than its owner may create"),
    ("CREATE SCHEMA pointsman; CREATE TABLE pointsman.allowed_privileged_roles (role_name name);"
     "ALTER TABLE pointsman.allowed_privileged_roles OWNER TO attacker", "relation pointsman.allowed_privileged_roles belongs to attacker"),
    ("CREATE SCHEMA pointsman; CREATE VIEW pointsman.allowed_privileged_roles AS SELECT rolname AS role_name FROM pg_roles",
     "is not a plain table"),
    ("CREATE SCHEMA pointsman; CREATE FUNCTION pointsman.get_verifier(varchar) RETURNS int LANGUAGE sql AS 'SELECT 1';"
     "ALTER FUNCTION pointsman.get_verifier(varchar) OWNER TO attacker", "belongs to attacker"),
    ("GRANT pointsman_owner TO attacker", "has members"),
    ("ALTER ROLE pointsman_owner LOGIN", "can log in"),
], ids=["schema", "schema-create", "table", "view", "overload", "owner-member", "owner-login"])
def test_it_refuses_to_build_on_what_others_have_laid_out(servers, trap, complaint):
    primary = servers.primary
    primary.sql("CREATE DATABASE trapped")
    try:
        for statement in trap.split(";"):
            primary.sql(statement, database="trapped")
        said = run_expecting_refusal(primary, AUTH_SQL, "trapped")
        assert complaint in said
        assert primary.value("SELECT count(*) FROM pg_proc WHERE proname = 'get_verifier' AND prosecdef", database="trapped") == 0
    finally:
        primary.sql("DROP DATABASE trapped")
        primary.sql("REVOKE pointsman_owner FROM attacker")
        primary.sql("ALTER ROLE pointsman_owner NOLOGIN")


def test_it_refuses_to_run_as_anybody_but_a_superuser(servers):
    primary = servers.primary
    primary.sql("CREATE DATABASE lowly")
    primary.sql("ALTER ROLE attacker CREATEROLE")
    primary.sql("GRANT ALL ON DATABASE lowly TO attacker")
    try:
        for script in (PROBE_SQL, AUTH_SQL):
            ran = subprocess.run(["psql", "-X", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "attacker", "-d", "lowly", "-f", script],
                                 env=clean_environment(PGPASSWORD="attacker-password"), capture_output=True, text=True, timeout=60)
            assert ran.returncode != 0, ran.stdout
            assert "ERROR" in ran.stderr
        assert primary.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pointsman'", database="lowly") == 0
    finally:
        primary.sql("DROP DATABASE lowly")
        primary.sql("ALTER ROLE attacker NOCREATEROLE")


def test_one_role_cannot_be_owner_and_auth_role(servers):
    assert "must be two roles" in run_expecting_refusal(servers.primary, AUTH_SQL, "postgres", auth_role="same", owner_role="same")


# --- the probe role ---

@pytest.mark.parametrize("where", ["primary", "replica"])
def test_the_probe_role_can_ask_everything_a_probe_asks(servers, where):
    with as_probe(getattr(servers, where)) as connection:
        for statement in PROBES["both"] + PROBES[where]:
            connection.execute(statement)
        assert connection.execute("SHOW search_path").fetchone() == ('""',)


def test_the_probe_role_sees_the_wal_receiver_of_a_replica(servers):
    statement = "SELECT status, received_tli FROM pg_catalog.pg_stat_wal_receiver"
    with as_probe(servers.replica) as connection:
        wait_until(lambda: connection.execute(statement).fetchone() == ("streaming", 1), "a streaming WAL receiver in sight")
    with connect(servers.replica, "app", "app-password", "postgres") as connection:
        assert connection.execute(statement).fetchone() == (None, None), "without pg_monitor there is nothing to see"


def test_what_was_revoked_from_public_is_given_back_to_the_probe_role_alone(servers):
    primary = servers.primary
    primary.sql("CREATE DATABASE hardened")
    functions = ("pg_control_system()", "pg_control_checkpoint()", "pg_is_in_recovery()", "pg_is_wal_replay_paused()", "pg_current_wal_lsn()")
    for function in functions:
        primary.sql(f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC", database="hardened")
    primary.sql("REVOKE CONNECT ON DATABASE hardened FROM PUBLIC")
    primary.run_script(PROBE_SQL, database="hardened")
    with as_probe(primary, database="hardened") as connection:
        for statement in PROBES["both"] + PROBES["primary"]:
            connection.execute(statement)
    for function in functions:
        assert primary.value("SELECT has_function_privilege('app', %s, 'EXECUTE')", (f"pg_catalog.{function}",), database="hardened") is False
    assert primary.value("SELECT has_database_privilege('app', 'hardened', 'CONNECT')") is False
    primary.sql("DROP DATABASE hardened")


@pytest.mark.parametrize("where", ["primary", "replica"])
def test_the_probe_role_cannot_read_verifiers(servers, where):
    with as_probe(getattr(servers, where)) as connection:
        refused(connection, "SELECT rolpassword FROM pg_catalog.pg_authid")
        refused(connection, "SELECT passwd FROM pg_catalog.pg_shadow")
        refused(connection, "SELECT * FROM pointsman.get_verifier('app')")


# --- the auth role ---

@pytest.mark.parametrize("where", ["primary", "replica"])
def test_the_auth_role_can_call_the_function_and_nothing_else(servers, where):
    node = getattr(servers, where)
    with as_auth(node) as connection:
        assert look_up(connection, "app") == [("app", node.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'"), None, True)]
        refused(connection, "SELECT rolname FROM pg_catalog.pg_authid")
        refused(connection, "SELECT rolpassword FROM pg_catalog.pg_authid")
        refused(connection, "SELECT * FROM pointsman.allowed_privileged_roles")
        refused(connection, "SET ROLE pointsman_owner")
        if where == "primary":
            refused(connection, "INSERT INTO pointsman.allowed_privileged_roles VALUES ('boss')")
            refused(connection, "CREATE TABLE pointsman.mine ()")
            refused(connection, "CREATE TABLE public.mine ()")
            refused(connection, "ALTER ROLE pointsman_owner LOGIN")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("ALTER FUNCTION pointsman.get_verifier(text) SECURITY INVOKER")


def test_nobody_else_can_call_the_function(servers):
    with connect(servers.primary, "app", "app-password", "postgres") as connection:
        refused(connection, "SELECT * FROM pointsman.get_verifier('app')")
    assert servers.primary.value("""
        SELECT array_agg(r.rolname::text ORDER BY r.rolname) FROM pg_roles AS r
         WHERE NOT rolsuper AND has_function_privilege(r.oid, 'pointsman.get_verifier(text)', 'EXECUTE')""") == ["pointsman_auth", "pointsman_owner"]


def test_the_owner_sees_six_columns_and_cannot_log_in(servers):
    assert servers.primary.value("""
        SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute
         WHERE attrelid = 'pg_authid'::regclass AND NOT attisdropped AND has_column_privilege('pointsman_owner', attrelid, attnum, 'SELECT')"""
                                 ) == ["rolcanlogin", "rolname", "rolpassword", "rolreplication", "rolsuper", "rolvaliduntil"]
    assert servers.primary.value("SELECT rolcanlogin OR rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'pointsman_owner'") is False
    assert servers.primary.value("SELECT has_any_column_privilege('pointsman_owner', 'pg_authid', 'INSERT, UPDATE, REFERENCES')") is False


def test_what_it_says_about_each_kind_of_role(servers):
    with as_auth(servers.primary) as connection:
        (row,) = look_up(connection, "expired")
        assert row[1].startswith("SCRAM-SHA-256$4096:")
        assert (row[2].isoformat(), row[3]) == ("2020-01-02T03:04:05+00:00", True)
        assert look_up(connection, "legacy") == [("legacy", "md5", None, True)], "that it is md5, never the hash"
        assert look_up(connection, "nopassword") == [("nopassword", None, None, True)]
        for absent in ("sleeping", "nobody", "", "APP", "app ", "%", "pg_monitor", "' OR true --", "x" * 100):
            assert look_up(connection, absent) == [], absent
        assert connection.execute("SELECT * FROM pointsman.get_verifier(NULL)").fetchall() == []


def test_a_name_is_not_cut_at_63_bytes(servers):
    longest = "l" * 63
    servers.primary.sql(f"CREATE ROLE {longest} LOGIN PASSWORD 'x'")
    with as_auth(servers.primary) as connection:
        assert len(look_up(connection, longest)) == 1
        assert look_up(connection, longest + "x") == []
    servers.primary.sql(f"DROP ROLE {longest}")


def test_privileged_roles_are_hidden_until_a_superuser_lists_them(servers):
    primary = servers.primary
    with as_auth(primary) as connection:
        for role in ("boss", "repl", "postgres"):
            assert look_up(connection, role) == []
        primary.sql("INSERT INTO pointsman.allowed_privileged_roles VALUES ('repl')")
        try:
            assert look_up(connection, "repl")[0][1].startswith("SCRAM-SHA-256$")
            assert look_up(connection, "boss") == []
            servers.catch_up()
            with as_auth(servers.replica) as on_replica:
                assert len(look_up(on_replica, "repl")) == 1
            primary.run_script(AUTH_SQL)
            assert len(look_up(connection, "repl")) == 1, "a second run keeps the list"
        finally:
            primary.sql("DELETE FROM pointsman.allowed_privileged_roles")
        assert look_up(connection, "repl") == []


def test_no_search_path_and_no_object_of_the_caller_changes_what_it_does(servers):
    """The caller owns a schema, stands first in the search path, and offers everything that the body names, under the same names."""
    primary = servers.primary
    primary.sql("CREATE DATABASE arena")
    primary.run_script(AUTH_SQL, database="arena")
    primary.sql("GRANT CREATE ON DATABASE arena TO pointsman_auth")
    with as_auth(primary, database="arena") as connection:
        honest = {role: look_up(connection, role) for role in ("app", "boss", "legacy")}
        connection.execute("""
            CREATE SCHEMA evil;
            GRANT USAGE ON SCHEMA evil TO PUBLIC; -- a schema without USAGE would be skipped when names are looked up
            ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
            CREATE TABLE evil.caught (who text);
            CREATE FUNCTION evil.spring() RETURNS boolean LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO evil.caught VALUES (current_user); RETURN true; END $$;
            CREATE FUNCTION evil.equal(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.spring()';
            CREATE FUNCTION evil.equal(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT evil.spring()';
            CREATE FUNCTION evil.like(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.spring()';
            CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.equal);
            CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.equal);
            CREATE OPERATOR evil.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.like);
            CREATE DOMAIN evil.text AS pg_catalog.text;
            CREATE TYPE evil.name AS ENUM ('a');
            CREATE TABLE evil.pg_authid (rolname name, rolpassword text, rolcanlogin bool, rolvaliduntil timestamptz, rolsuper bool, rolreplication bool);
            CREATE TABLE evil.allowed_privileged_roles (role_name name);
            INSERT INTO evil.allowed_privileged_roles VALUES ('boss');
            CREATE TEMPORARY TABLE pg_authid AS TABLE evil.pg_authid;
            CREATE TEMPORARY TABLE allowed_privileged_roles AS TABLE evil.allowed_privileged_roles;
        """)
        for path in ("evil, pg_temp, pg_catalog", "pg_temp, evil, pg_catalog", "evil"):
            connection.execute(f"SET search_path = {path}")
            assert {role: look_up(connection, role) for role in honest} == honest, path
            assert connection.execute("SELECT pg_catalog.count(*) FROM evil.caught").fetchone() == (0,), path
    with connect(primary, "pointsman_auth", AUTH_PASSWORD, "arena", options="-c search_path=evil") as connection:
        assert look_up(connection, "boss") == []
    primary.sql("DROP DATABASE arena")


def test_a_rotated_password_is_told_at_once(servers):
    with as_auth(servers.primary) as connection:
        before = look_up(connection, "app")[0][1]
        servers.primary.sql("SET password_encryption = 'scram-sha-256'; ALTER ROLE app PASSWORD 'app-password'")
        assert look_up(connection, "app")[0][1] != before
    servers.catch_up()


def test_these_are_the_servers_the_scripts_were_written_for(servers):
    assert servers.primary.value("SHOW server_version_num").startswith("15")
    assert servers.replica.value("SELECT pg_is_in_recovery()") is True
