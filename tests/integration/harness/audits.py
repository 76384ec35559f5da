"""Rows put into the audit of a gateway that is stopped, as no gateway in a hurry could make them: a month of them, or such as are
meant to harm whoever reads them."""

import ipaddress
import json
import os
import random
import sqlite3

KINDS = ["open", "connected", "denied", "ended", "login-failed", "policy", "admin", "start", "stop", "flow", "flow-ended",
         "checkpoint", "flow-checkpoint", "throttle", "look"]

# What a name, a user, a rule or a comment must do to nobody.
HOSTILE = [
    "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "\"onmouseover=\"alert(1)", "a&b&lt;", "'><b>",
    "=HYPERLINK(\"http://x.test\")", "+1+1", "-1+1", "@SUM(A1)", "x;=1+1", "\t=1+1", "\r=1+1", "\x1b[31mred\x1b]0;title\x07",
    "ann\u202egnp.exe", "zero\u200bwidth", "\x9b31m", "line\nbreak", "bell\x07", "back\\slash", "\u2066isolate", "%s%n", "{{7*7}}",
]


class Rows:
    """Appends to the last segment, in the order of time; close() makes them durable."""

    def __init__(self, directory):
        name = sorted(n for n in os.listdir(directory) if n.startswith("audit-") and n.endswith(".db"))[-1]
        self.db = sqlite3.connect(os.path.join(directory, name))
        self.id = self.db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]

    def add(self, kind, time_us, **columns):
        self.id += 1
        row = {"id": self.id, "time": time_us, "kind": KINDS.index(kind), **columns}
        for key in ("client", "address"):
            if isinstance(row.get(key), str):
                row[key] = ipaddress.ip_address(row[key]).packed
        if isinstance(row.get("detail"), dict):
            row["detail"] = json.dumps(row["detail"], separators=(",", ":"))
        # Bytes stand for text that is none.
        places = ", ".join("CAST(? AS TEXT)" if isinstance(v, bytes) and k not in ("client", "address") else "?" for k, v in row.items())
        self.db.execute(f"INSERT INTO event ({', '.join(row)}) VALUES ({places})", list(row.values()))
        return self.id

    def session(self, number, time_us, duration_us=1_000_000, up=1000, down=10000, reason="closed", country="DE", **columns):
        columns = {"session": number, "listener": "main", "method": "password", "command": "connect", "client": "192.0.2.1", **columns}
        groups = columns.pop("groups", [])
        self.add("open", time_us, **columns, detail={"candidates": [{"address": "198.51.100.1", "rule": "r", "country": country}],
                                                     "groups": groups})
        self.add("ended", time_us + duration_us, **columns, bytes_up=up, bytes_down=down, duration=duration_us, reason=reason,
                 detail={"country": country})

    def close(self):
        self.db.commit()
        self.db.close()


def month(rows, end_us, sessions=3000, seed=1):
    """A month of a company's traffic before end_us."""
    rng = random.Random(seed)
    users = ["a.lindqvist", "m.okafor", "j.tanaka", "s.moreau", "p.novak", "r.castillo", "build-7", "e.haddad", "l.fischer", "t.nguyen",
             "k.osei", "d.romano", "h.weber", "n.kaya"]
    places = [("api.payroll.example", "payroll-hr", "US"), ("github.example", "engineering", "US"), ("cdn.vendor.example", "vendors", "DE"),
              ("mail.example.org", "mail", "DE"), ("registry.example.dev", "engineering", "NL"), ("docs.example.com", "web", "US"),
              ("storage.eu.example", "backups", "FI"), ("tickets.example.net", "web", "SE"), ("weather.example", "web", "FR")]
    refused = [("tracker.example", "no-trackers"), ("10.0.4.17", "no-internal"), ("mirror.example.kp", "embargo"),
               ("smtp.example", "no-smtp"), ("paste.example", "no-paste")]
    events = []
    for n in range(sessions):
        day = min(29, int(rng.triangular(0, 30, 24)))
        if day % 7 in (5, 6) and rng.random() < .8:
            day = max(0, day - 2)
        at = end_us - (30 - day) * 86400_000000 + int(rng.gauss(13, 2.5) * 3600e6)
        events.append((min(at, end_us - 2_000_000), n))
    for at, n in sorted(events):
        user = users[min(len(users) - 1, int(rng.expovariate(.35)))]
        roll = rng.random()
        common = {"client": f"192.0.2.{10 + users.index(user)}", "user": user, "listener": "main", "revision": 12}
        if roll < .86:
            name, rule, country = places[min(len(places) - 1, int(rng.expovariate(.45)))]
            down = int(rng.lognormvariate(13, 2))
            rows.session(1000 + n, at, rng.randrange(10**6, 10**9), down // rng.randrange(3, 20), down, name=name, port=443, rule=rule,
                         country=country, **common)
        elif roll < .96:
            name, rule = refused[min(len(refused) - 1, int(rng.expovariate(.8)))]
            rows.add("denied", at, session=1000 + n, name=name, port=443, rule=rule, command="connect", method="password",
                     reason="denied by policy: rule " + rule, **common)
        else:
            rows.add("login-failed", at, reason=rng.choice(["log-in denied"] * 3 + ["log-in throttled"]), **common)
    rows.add("admin", end_us - 6 * 86400_000000, user="uid 0", reason="auth unlock a.lindqvist")
