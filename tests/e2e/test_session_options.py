"""pointsman.* session options: ours are taken out, everything else in `options` stays byte for byte."""

import pytest
from harness.wire import Refused
from harness.world import BRANCH, PASSWORDS

USER = f"app.{BRANCH}"


def refused(router, user=USER, listener="direct", **options):
    with router.open(listener) as wire:
        with pytest.raises(Refused) as caught:
            wire.login(user, PASSWORDS["app"], **options)
        wire.expect_end()
    return caught.value


@pytest.mark.parametrize("options", [
    "-c pointsman.max_lag=2s", "-cpointsman.max_lag=2s", "--pointsman.max_lag=2s", "  -c   pointsman.max_lag=2s  ",
    r"-c pointsman.max_lag=\2s", "-c POINTSMAN.max_lag=2s", "-c pointsman.max_lag=2s -c pointsman.explain=off",
])
def test_an_options_text_with_ours_alone_is_dropped(router, options):
    session = router.login(f"{USER}|replica", parameters={"options": options})
    assert session.value("SELECT current_setting('pointsman.max_lag', true)") is None
    session.terminate()


@pytest.mark.parametrize("options, expected", [
    ("-c work_mem=5MB -c pointsman.max_lag=2s -c application_name=three", ("5MB", "three")),
    ("--work-mem=6MB --pointsman.max-lag=2s --application_name=dashes", ("6MB", "dashes")),
    ("-cwork_mem=7MB -cpointsman.max_lag=2s -capplication_name=tight", ("7MB", "tight")),
    (r"-c application_name=a\ space\\and\ backslash -c pointsman.max_lag=2s -c work_mem=8MB", ("8MB", "a space\\and backslash")),
    ("-c pointsman.max_lag=2s   -c work_mem=9MB\t-c application_name=tab", ("9MB", "tab")),
    ("-c application_name=pointsman.max_lag=2s -c work_mem=10MB", ("10MB", "pointsman.max_lag=2s")),
])
def test_the_options_of_others_stay_as_they_are(router, options, expected):
    session = router.login(f"{USER}|replica", parameters={"options": options})
    assert tuple(session.query("SELECT current_setting('work_mem'), current_setting('application_name')")[0]) == expected
    assert session.value("SELECT current_setting('pointsman.max_lag', true)") is None
    session.terminate()


def test_an_option_may_be_a_startup_parameter(router):
    session = router.login(f"{USER}|replica", parameters={"pointsman.max_lag": "2s", "pointsman.fallback": "primary"})
    assert session.value("SELECT current_setting('pointsman.max_lag', true)") is None
    session.terminate()


def test_psql_passes_options_through_pgoptions(router):
    result = router.psql("SHOW work_mem", f"{USER}|replica", options="-c pointsman.max_lag=5s -c work_mem=11MB")
    assert result.stdout == "11MB"


@pytest.mark.parametrize("user, listener", [(USER, "direct"), (f"{USER}|replica", "direct"), (f"{USER}|app", "pooled")])
@pytest.mark.parametrize("name, value", [("nosuch", "1"), ("explain", "maybe")])
def test_an_unknown_name_or_a_bad_value_is_refused_by_name(router, user, listener, name, value):
    for parameters in ({f"pointsman.{name}": value}, {"options": f"-c pointsman.{name}={value}"}):
        got = refused(router, user, listener, parameters=parameters)
        assert got.sqlstate == "22023" and f"pointsman.{name}" in got.message + got.detail


@pytest.mark.parametrize("name, value", [("min_lsn", "nonsense"), ("min_lsn", "1/2/3"), ("wait", "soon"), ("wait", "-1s"), ("max_lag", "2 parsecs"),
                                         ("fallback", "replica"), ("explain", "maybe"), ("max_lag", "")])
def test_a_bad_value_is_refused(router, name, value):
    assert refused(router, f"{USER}|replica", parameters={f"pointsman.{name}": value}).sqlstate == "22023"


@pytest.mark.parametrize("name, value", [("min_lsn", "0/1"), ("wait", "1s"), ("max_lag", "1s")])
def test_replica_options_have_no_meaning_on_pooled_routes(router, name, value):
    got = refused(router, f"{USER}|reads", "pooled", parameters={f"pointsman.{name}": value})
    assert got.sqlstate == "22023" and f"pointsman.{name}" in got.message + got.detail


@pytest.mark.parametrize("user, listener, word", [
    (USER, "direct", "primary"), (f"{USER}|replica", "direct", "replica_"), (USER, "pooled", "local_pool"), (f"{USER}|reads", "pooled", "named_pool")])
def test_explain_says_where_the_session_went_and_why(router, user, listener, word):
    session = router.login(user, listener=listener, parameters={"pointsman.explain": "on"})
    [notice] = session.notices
    assert notice["V"] == "NOTICE" and word in " ".join(notice.values())
    session.terminate()
    session = router.login(user, listener=listener)
    assert session.notices == []
    session.terminate()


def test_read_your_own_writes_with_min_lsn(router, cluster):
    writer = router.login(USER)
    writer.query("CREATE TABLE IF NOT EXISTS own_writes (n int)")
    try:
        for number in range(5):
            writer.query(f"INSERT INTO own_writes VALUES ({number})")
            lsn = writer.value("SELECT pg_current_wal_insert_lsn()")
            reader = router.login(f"{USER}|replica", parameters={"options": f"-c pointsman.min_lsn={lsn} -c pointsman.wait=5s"})
            assert reader.query("SELECT pg_is_in_recovery(), max(n) FROM own_writes") == [["t", str(number)]]
            reader.terminate()
    finally:
        writer.query("DROP TABLE own_writes")
        writer.terminate()


def test_an_lsn_not_reached_goes_to_the_primary_when_asked_to(router):
    session = router.login(f"{USER}|replica", parameters={"pointsman.min_lsn": "FFFF/0", "pointsman.fallback": "primary"})
    assert session.value("SELECT pg_is_in_recovery()") == "f"
    session.terminate()


def test_waiting_for_an_lsn_ends_when_the_replica_arrives(router, cluster):
    for replica in cluster.replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    try:
        cluster.primary.sql("CREATE TABLE waited_for ()")
        lsn = cluster.current_lsn()
        got = refused(router, f"{USER}|replica", parameters={"pointsman.min_lsn": lsn})
        assert (got.sqlstate, got.reason) == ("57P03", "min_lsn_not_reached")
        wire = router.open()
        wire.startup(f"{USER}|replica", {"pointsman.min_lsn": lsn, "pointsman.wait": "8s"})
    finally:
        for replica in cluster.replicas:
            replica.sql("SELECT pg_wal_replay_resume()")
    session = wire.authenticate(PASSWORDS["app"])
    assert session.value("SELECT pg_is_in_recovery()") == "t"
    session.terminate()
    cluster.primary.sql("DROP TABLE waited_for")
