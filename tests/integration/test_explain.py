"""gatewayctl policy explain: which condition failed, what the guard refused, which window is open and until when."""

import json
import os
import subprocess

from harness import geo, wait
from harness.gateway import BUILD

POLICY = """\
tz "Europe/Berlin"
window office { mon-fri 08:00-18:00 }
window night { mon-sun 22:00-06:00 except 2026-11-20 }
rule leisure deny to domain .games.example during office
rule late allow group ops during night
rule web allow group staff port 80 443 by name
rule inside allow group staff to cidr 10.1.0.0/16
rule chips allow to asn 64500 to country DE
default deny
"""


def explain(tmp_path, *arguments):
    (tmp_path / "p").write_text(POLICY)
    command = [os.path.join(BUILD, "admin", "gatewayctl"), "policy", "explain", "--policy", str(tmp_path / "p"), *arguments]
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60))
    as_json = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60))
    assert text.returncode == as_json.returncode, text.stderr
    return text.returncode, text.stdout.decode(), json.loads(as_json.stdout)


def rule(phase, name):
    return [r for r in phase["rules"] if r["rule"] == name][0]


def test_window(tmp_path):
    code, text, said = explain(tmp_path, "chess.games.example", "--user", "ann", "--group", "staff", "--at", "2026-11-20 10:00")
    assert code == 1 and "window office is open until Fri 2026-11-20 18:00 Europe/Berlin" in text
    window = rule(said["phases"][0], "leisure")["windows"][0]
    assert (window["window"], window["state"], window["until_s"]) == ("office", "open", 1795194000)
    code, text, said = explain(tmp_path, "chess.games.example", "--user", "ann", "--group", "staff", "--at", "2026-11-20 18:00")
    assert code == 0 and "window office is shut until Mon 2026-11-23 08:00 Europe/Berlin" in text


def test_window_past_midnight_with_an_exception(tmp_path):
    arguments = ["x.example", "--user", "ann", "--group", "ops", "--at"]
    assert "window night is open until Fri 2026-11-20 06:00" in explain(tmp_path, *arguments, "2026-11-20 05:59")[1]
    assert "window night is shut until Sat 2026-11-21 22:00" in explain(tmp_path, *arguments, "2026-11-20 22:30")[1]


def test_failed_conditions_and_guard(tmp_path):
    code, text, said = explain(tmp_path, "intra.example", "--user", "ann", "--group", "staff", "--port", "80", "--at", "2026-11-20 10:00",
                               "--resolves", "10.1.2.3", "--resolves", "10.2.2.3", "--resolves", "203.0.113.1")
    assert code == 0
    by_address = {p["address"]: p for p in said["phases"]}
    assert rule(by_address["203.0.113.1"], "leisure")["condition"] == "to domain .games.example"
    assert by_address["203.0.113.1"]["decision"]["verdict"] == "allow"
    # Rule web matches both inner addresses, and opens neither.
    for address in ("10.1.2.3", "10.2.2.3"):
        decision = by_address[address]["decision"]
        assert (decision["verdict"], decision["reason"], decision["rule"]) == ("deny", "guard", "web")
        assert "10.0.0.0/8" in decision["text"] and decision["text"] in text
    code, _, said = explain(tmp_path, "10.1.2.3", "--user", "ann", "--group", "staff", "--port", "80", "--at", "2026-11-20 10:00")
    assert code == 0 and said["decision"]["rule"] == "inside"
    assert rule(said["phases"][0], "web")["condition"] == "by name"


def test_databases(tmp_path):
    arguments = ["203.0.113.7", "--at", "2026-11-20 10:00"]
    code, text, said = explain(tmp_path, *arguments)
    assert code == 1 and said["decision"]["reason"] == "cannot-decide" and "cannot be evaluated" in text
    bases = ["--geoip", geo.build(tmp_path / "g", {"203.0.113.0/24": "DE"}), "--asn", geo.build_asn(tmp_path / "a", {"203.0.113.0/24": 64500})]
    code, _, said = explain(tmp_path, *arguments, *bases)
    assert code == 0 and said["decision"]["rule"] == "chips"


def test_usage(tmp_path):
    (tmp_path / "p").write_text(POLICY)
    for arguments in ([], ["--port", "70000", "x.example"], ["--client", "x", "x.example"], ["--at", "yesterday", "x.example"], ["a b"], ["x", "y"],
                      ["--revision", "1", "x.example"]):
        done = subprocess.run([os.path.join(BUILD, "admin", "gatewayctl"), "policy", "explain", "--policy", str(tmp_path / "p"), *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(60))
        assert done.returncode == 2 and done.stderr, arguments
