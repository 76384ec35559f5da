"""A start that cannot work ends quickly, with one clear line and a code other than 0; so does gatewayd -n."""

import os
import signal
import socket

import pytest

from harness import wait
from harness.gateway import BUILD
from harness.starts import refused

pytestmark = pytest.mark.long


@pytest.fixture
def unstarted(gateway):
    return lambda *args, **kwargs: gateway(*args, start=False, **kwargs)


def test_port_in_use(unstarted):
    g = unstarted()
    with socket.create_server(g.address):
        refused(g, str(g.port))


def test_port_that_a_killed_gateways_last_process_still_holds(unstarted):
    for turn in range(5):
        g = unstarted()
        with socket.create_server(g.address):
            g.spawn()
            wait.until(lambda: "is held by another program: waiting" in g.log(), "gatewayd waits")
        try:
            wait.until(g._ready, "gatewayd is ready")
            return
        except AssertionError:
            if "another program holds it" not in g.log() or turn == 4:
                raise
            g.expected_exit = g.process.wait(wait.seconds(40))  # it waits for five seconds, and we took longer to let go


def test_second_gateway_on_the_same_port(gateway):
    first = gateway()
    second = gateway(start=False)
    second.port = first.port
    second.configure()
    refused(second, str(first.port))


def test_second_gateway_on_the_same_state(gateway):
    first = gateway()
    second = gateway(start=False, state_dir=first.state)
    refused(second, first.state)


def test_second_gateway_on_the_same_control_socket(gateway):
    first = gateway()
    second = gateway(start=False, control_socket=first.socket)
    refused(second, first.socket)
    assert first.status()


def test_missing_policy(unstarted):
    g = unstarted()
    os.unlink(g.policy_file)
    refused(g, g.policy_file)


def test_policy_is_a_directory(unstarted):
    g = unstarted()
    os.unlink(g.policy_file)
    os.mkdir(g.policy_file)
    refused(g, g.policy_file)


def test_policy_that_may_not_be_read(unstarted):
    if os.geteuid() == 0:
        g = unstarted(as_user="nobody", user=None)
        os.chown(g.policy_file, 0, 0)
    else:
        g = unstarted()
    os.chmod(g.policy_file, 0)
    refused(g, g.policy_file)


def test_bad_policy(unstarted):
    g = unstarted("rule x alow\n")
    code, lines = g.run("-c", g.conf)
    assert code > 0
    assert any("gateway.policy:1:8: error" in line and "alow" in line for line in lines), lines


def test_missing_geoip_database(unstarted):
    g = unstarted(geoip_database="/nonexistent/country.mmdb")
    refused(g, "/nonexistent/country.mmdb")


def test_damaged_geoip_database(unstarted, geo_database):
    g = unstarted(geoip_database=None)
    data = open(geo_database, "rb").read()
    g.write("bad.mmdb", "")
    with open(g.path("bad.mmdb"), "wb") as f:
        f.write(data[: len(data) // 2])
    g.configure(geoip_database=g.path("bad.mmdb"))
    refused(g, g.path("bad.mmdb"))


def test_read_only_state_directory(unstarted):
    """Root writes anywhere, so it is an ordinary user who finds it read-only."""
    g = unstarted(as_user="nobody", user=None) if os.geteuid() == 0 else unstarted()
    os.chmod(g.state, 0o500)
    if os.geteuid() == 0:
        os.chown(g.state, 0, 0)
        os.chmod(g.state, 0o555)
    refused(g, g.state)


def test_missing_state_directory_under_a_file(unstarted):
    g = unstarted()
    g.configure(state_dir=g.policy_file + "/state")
    refused(g, g.policy_file + "/state")


def test_state_of_somebody_elses_program(unstarted):
    """A file that is no database where ours should be."""
    g = unstarted()
    g.start()
    g.restart()
    g.stop()
    found = [os.path.join(d, f) for d, _, files in os.walk(g.state) for f in files if f.endswith((".db", ".sqlite"))]
    assert found, list(os.walk(g.state))
    for file in found:
        with open(file, "wb") as f:
            f.write(b"not a database" * 1000)
    code, lines = g.run("-c", g.conf)
    assert code > 0 and lines


def test_unknown_option(unstarted):
    g = unstarted()
    with open(g.conf, "a", encoding="utf-8") as f:
        f.write("colour = 3\n")
    n = len(open(g.conf, encoding="utf-8").readlines())
    refused(g, f"{g.conf}:{n}:", "colour")


@pytest.mark.parametrize("option, value, word", [
    ("workers", 0, "workers"), ("workers", 100000, "workers"), ("handshake_timeout", 1, "handshake-timeout"),
    ("log_level", "loud", "log-level"), ("state_dir", "relative", "state-dir"), ("resolver", ["nowhere"], "resolver"),
    ("listener_methods", ["gssapi2"], "methods"), ("listener_clients", ["127.0.0.1/8"], "host bits"), ("control_socket", "/" + "x" * 200, "control-socket"),
    ("search_domain", "a b", "search-domain"), ("pam_processes", -1, "pam-processes"), ("listener_address", ["127.0.0.1:99999"], "address"),
])
def test_wrong_values_say_file_line_and_range(unstarted, option, value, word):
    g = unstarted()
    g.configure(**{option: value})
    line = refused(g, word)
    assert g.conf in line


def test_open_proxy_needs_a_word(unstarted):
    g = unstarted(listener_methods=["none"], listener_clients=None, listener_address=["0.0.0.0:1"])
    refused(g, "open-proxy")


def test_no_listener(unstarted):
    g = unstarted()
    g.write("gatewayd.conf", "workers = 2\n")
    refused(g, "listener")


def test_syntax_error_in_the_configuration(unstarted):
    g = unstarted()
    with open(g.conf, "a", encoding="utf-8") as f:
        f.write("workers = = 3\n")
    refused(g, g.conf)


def test_missing_configuration(unstarted):
    g = unstarted()
    os.unlink(g.conf)
    refused(g, g.conf)


def test_unknown_user(unstarted):
    if os.geteuid() != 0:
        pytest.skip("only root changes users")
    refused(unstarted(user="no-such-user"), "no-such-user")


def test_check_only(unstarted):
    g = unstarted()
    code, lines = g.run("-n", "-c", g.conf)
    assert code == 0, lines
    assert os.listdir(g.state) == []
    g.configure(workers=0)
    code, lines = g.run("-n", "-c", g.conf)
    assert code > 0 and "workers" in lines[0] and g.conf in lines[0]


def test_check_only_while_another_runs(gateway):
    g = gateway()
    code, lines = g.run("-n", "-c", g.conf)
    assert code == 0, lines


def test_unknown_arguments(unstarted):
    g = unstarted()
    for arguments in (["--no-such-option"], ["-c"], ["-c", g.conf, "more"]):
        code, lines = g.run(*arguments)
        assert code > 0 and lines


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(gateway, sig):
    g = gateway()
    assert g.stop(sig) == 0
    assert not os.path.exists(g.socket)


def test_stop_while_starting(unstarted):
    g = unstarted()
    g.spawn()
    assert g.stop() in (0, -signal.SIGTERM)
    g.expected_exit = g.process.returncode


def test_state_is_found_again(gateway, echo):
    g = gateway()
    g.session("127.0.0.1", echo.port).close()
    g.wait_rows(1, event="ended")
    revision = g.revision()
    g.restart()
    assert g.row(event="open")["user"] == "ann"
    assert g.revision() == revision
    g.session("127.0.0.1", echo.port).close()
    assert len(g.wait_rows(2, event="open")) == 2


def test_stale_control_socket_is_replaced(gateway):
    g = gateway(start=False)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(g.socket)
    s.close()
    g.start()
    assert g.status()


def test_version_and_help_need_no_configuration():
    import subprocess

    for program in ("gatewayd/gatewayd", "admin/gatewayctl"):
        for option in ("--help", "--version"):
            done = subprocess.run([os.path.join(BUILD, program), option], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=wait.seconds(40))
            assert done.returncode == 0 and done.stdout, (program, option, done)
