"""Countries change with the policy, or not at all."""

import os

from harness import admin, geo, servers, socks

POLICY = "rule german allow to country DE to cidr 127.0.0.0/16\ndefault deny\n"


def codes(g, port):
    found = []
    for host in ("127.0.1.1", "127.0.2.1"):
        with g.session(host, port) as c:
            found.append(c.code)
    return found


def anew(g):
    """Changes of the table that the audit tells of."""
    return [r for r in g.rows(event="policy") if "country table was made anew" in r["reason"]]


def test_bad_policy_with_a_new_database(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(POLICY, start=False)
    file = geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE", "127.0.2.0/24": "KP"})
    g.configure(geoip_database=file)
    g.start()
    assert codes(g, s.port) == [socks.OK, socks.NOT_ALLOWED]

    geo.build(file, {"127.0.1.0/24": "KP", "127.0.2.0/24": "DE", "198.51.100.0/24": "FR"})
    g.write_policy("rule german alow\n")
    assert g.reload(check=False).returncode != 0
    assert codes(g, s.port) == [socks.OK, socks.NOT_ALLOWED]
    assert not anew(g)

    g.write_policy(POLICY + "# mended\n")
    g.reload()
    assert codes(g, s.port) == [socks.NOT_ALLOWED, socks.OK]
    assert [r["user"] for r in anew(g)] == [f"uid {os.getuid()}"]
    g.reload()  # nothing has changed
    assert len(anew(g)) == 1


def test_bad_database_with_a_new_policy(gateway, server):
    """The policy is taken, the countries stay, and a warning says so."""
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(POLICY, start=False)
    file = geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE"})
    g.configure(geoip_database=file)
    g.start()
    with open(file, "wb") as f:
        f.write(b"no database")
    g.write_policy(POLICY.replace("DE", "DE KP"))
    done = g.reload()
    assert file in done.out + done.err, (done.out, done.err)
    assert codes(g, s.port) == [socks.OK, socks.NOT_ALLOWED]


def test_a_dry_reload_changes_no_countries(gateway, server):
    s = server(servers.Echo, "0.0.0.0")
    g = gateway(POLICY, start=False)
    file = geo.build(g.path("country.mmdb"), {"127.0.1.0/24": "DE", "127.0.2.0/24": "KP"})
    g.configure(geoip_database=file, database_check_interval=86400000)
    g.start()
    geo.build(file, {"127.0.1.0/24": "KP", "127.0.2.0/24": "DE", "198.51.100.0/24": "FR"})
    for text in (POLICY, POLICY + "# news\n"):
        g.write_policy(text)
        reply, _ = admin.ask(g.socket, {"command": "reload", "dry_run": True})
        assert reply["ok"] and reply["revision"] == 1, reply
        assert codes(g, s.port) == [socks.OK, socks.NOT_ALLOWED]
    g.reload()
    assert codes(g, s.port) == [socks.NOT_ALLOWED, socks.OK]
