import pytest, subprocess, os, time
from test_relay import *
def one(router, listener):
    wire = router.open() if listener == "direct" else router.open_plain("off")
    session = wire.login(USER, PASSWORDS["app"])
    wire.send(message("Q", b"SELECT n, repeat('h', 100) FROM generate_series(1, 5000) AS n\0") + message("X"))
    wire.finish_sending()
    wire.socket.settimeout(3)
    n=len(wire.transcript)
    port=wire.socket.getsockname()[1]
    try:
        wire.read_until("Z"); wire.expect_end(); return "ok"
    except Exception as e:
        got=sum(5+len(m.body) for m in wire.transcript[n:])+len(wire._buffer)
        ss=subprocess.run(["ss","-tnpm"],capture_output=True,text=True).stdout
        rows=[r for r in router.sessions() if str(port) in r["client"]]
        lines=ss.splitlines()
        out=[l[:160] for l in lines if f":{port}" in l or f":{router.world.cluster.primary.port}" in l and "pointsman" in l]
        return f"{listener} {e!r} rows={sum(m.type=='D' for m in wire.transcript[n:])} bytes={got} \n {rows}\n"+"\n".join(out)+"\n"+"\n".join(l for l in router.log().splitlines() if str(port) in l)
def test_x(router):
    for n in range(60):
        for listener in ("off", "direct"):
            r=one(router, listener)
            if r!="ok": print(n, r)
    assert 0
