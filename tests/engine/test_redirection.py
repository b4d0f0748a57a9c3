"""The redirection of a machine in a real network: what other programs flush comes back, and what is theirs stays."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.host import ADDRESS, CONTAINER, SCRIPTS, Host, answer_of, enter, running, started_host
from tests.support.scripts import add_program
from tests.support.waiting import wait_until

CLEAN = """
locked turn_off; nft flush ruleset
for table in nat raw; do iptables-legacy -t $table -F; iptables-legacy -t $table -X; done
"""
FOREIGN_SET = "*nat\n:PREROUTING ACCEPT [0:0]\n:FOREIGN - [0:0]\n-A PREROUTING -j FOREIGN\n-A FOREIGN -p tcp --dport 99 -j RETURN\nCOMMIT\n"
FOREIGN_NATIVE = "add rule ip nat PREROUTING tcp dport 9000 redirect to :9001"
FLUSHES = {
    "nat": "$program -t nat -F",
    "raw": "$program -t raw -F",
    "chains": "for t in nat raw mangle; do $program -t $t -F; $program -t $t -X; done",
    "one rule": "$program -t nat -D ISTIO_INBOUND 3",
    "the first rules": "$program -t nat -D ISTIO_OUTPUT 1; $program -t nat -D ISTIO_INBOUND 1",
    "the way to the chain": "$program -t nat -D PREROUTING -p tcp -j ISTIO_INBOUND",
    "another set": f"$program-restore <<<{shlex.quote(FOREIGN_SET)}",
}
"""What other programs do, with the iptables of a backend as `$program`."""


@pytest.fixture(scope="module", params=["nft", "legacy"])
def _started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, str]]:
    with started_host(tmp_path_factory.mktemp("host"), request.param) as host:
        yield host, request.param


@pytest.fixture
def backend(_started: tuple[Host, str]) -> str:
    return _started[1]


@pytest.fixture
def host(_started: tuple[Host, str]) -> Iterator[Host]:
    """A host whose agent has been started and has the name table."""
    host = replace(_started[0], environment=dict(_started[0].environment))
    host.run("locked turn_on; locked turn_dns_on")
    yield host
    host.environment.update(_started[0].environment)
    host.run(CLEAN)


@pytest.fixture(scope="module")
def nft_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host without rules, whose iptables is that of nftables."""
    with started_host(tmp_path_factory.mktemp("host"), "nft") as host:
        yield host


@pytest.fixture
def bare_host(nft_host: Host) -> Iterator[Host]:
    yield replace(nft_host, environment=dict(nft_host.environment))
    nft_host.run(CLEAN)


def with_program(host: Host, backend: str, text: str) -> str:
    return host.run(f"program=iptables-{backend}\n{text}")


def istio(host: Host, before: str = "") -> list[str]:
    return [rule for rule in host.rules(before) if "ISTIO" in rule]


def test_rules_that_were_flushed_come_back_as_they_were(host: Host, backend: str) -> None:
    before = istio(host)
    assert host.answer() == "agent"
    for name, flush in FLUSHES.items():
        with_program(host, backend, flush)
        assert istio(host) != before and re.search(r"\d+ rules of iptables-\w+ are missing", host.run("check")), name
        output = host.run("locked repair")
        assert re.fullmatch(rf"put \d+ missing rules of the redirection back \(iptables-{backend}: [a-z ]+\)\n", output), name
        assert (istio(host), host.run("check; locked repair")) == (before, ""), name
    assert host.answer() == "agent"


def test_rules_come_back_after_nftables_flushed_everything(bare_host: Host) -> None:
    bare_host.run("locked turn_on; locked turn_dns_on")
    before = istio(bare_host)
    bare_host.run("nft flush ruleset")
    assert bare_host.answer() == "application"
    with bare_host.guard():
        wait_until(lambda: bare_host.answer() == "agent")
        wait_until(lambda: istio(bare_host) == before)


def test_what_a_program_takes_away_comes_back_by_itself(host: Host, backend: str) -> None:
    before = istio(host)
    of_nft = {"a table": "nft delete table ip nat; nft delete table ip raw"} if backend == "nft" else {}
    with host.guard():
        for name, taken in {"chains": FLUSHES["chains"], "another set": FLUSHES["another set"], **of_nft}.items():
            assert istio(host, f"program=iptables-{backend}\n{taken}") != before, name
            wait_until(lambda: istio(host) == before)
    assert host.answer() == "agent"


def test_rules_of_others_stay_behind_ours_in_their_order(host: Host, backend: str) -> None:
    foreign = """
        $program -t nat -I PREROUTING -p tcp --dport 9 -m comment --comment "before -j ISTIO_INBOUND here" -j ACCEPT
        $program -t nat -A PREROUTING -p tcp --dport 10 -j ACCEPT
        $program -t nat -I ISTIO_INBOUND 3 -p tcp --dport 8080 -j RETURN
        $program -t nat -N ISTIO_POSTRT
        $program -t nat -A POSTROUTING -j ISTIO_POSTRT
    """
    with_program(host, backend, foreign)
    assert "put 1 missing rules" in host.run("locked repair")
    before = host.rules()
    assert host.answer() == "application"
    assert [rule.split("--dport ")[-1][:2] for rule in before if " nat PREROUTING " in rule][1:] == ["9 ", "10"]
    with_program(host, backend, "$program -t nat -D ISTIO_INBOUND 1; $program -t nat -D PREROUTING 1; $program -t nat -F ISTIO_OUTPUT")
    host.run("locked repair")
    assert host.rules() == before
    host.run("locked turn_off")
    left = [rule for rule in host.rules() if " nat " in rule and re.search("--dport|POSTRT", rule)]
    assert [re.sub(r"^\S+ nat ", "", rule).split(" -m ")[0] for rule in left] == [
        ":ISTIO_POSTRT", "PREROUTING -p tcp", "PREROUTING -p tcp", "POSTROUTING -j ISTIO_POSTRT",
    ]  # fmt: skip


def test_a_program_that_puts_its_own_rules_first_again_and_again_is_left_alone(host: Host, backend: str) -> None:
    """Calico does, and nothing is redirected by them. Another chain in front of ours is put behind."""
    for name, text in {"cali-PREROUTING": "", "OTHERS": "put 1 missing rules"}.items():
        first = f"$program -t nat -N {name}; $program -t nat -I PREROUTING -m comment --comment cali:6gwbT8clXdHdC1b1 -j {name}"
        output = with_program(host, backend, f"{first}; locked repair")
        assert (text in output, bool(output)) == (True, bool(text)), name
        assert host.answer() == "agent"
    with_program(host, backend, "$program -t nat -D PREROUTING -p tcp -j ISTIO_INBOUND")
    assert ("put 1 missing rules" in host.run("locked repair"), host.answer()) == (True, "agent")


def test_no_rule_is_doubled_by_a_set_that_was_saved_before(host: Host, backend: str) -> None:
    before = istio(host)
    with_program(host, backend, "$program-save >$STATE/saved; $program-restore --noflush <$STATE/saved; locked repair")
    host.run("locked turn_off")
    assert istio(host) == [] and before


def test_connections_outlive_a_repair(host: Host, backend: str) -> None:
    with host.connection() as connection:
        assert connection.stdin and connection.stdout and connection.stdout.readline() == "agent\n"
        for command in FLUSHES.values():
            # Without rules the kernel resets what arrives for a redirected connection: so nothing is under way.
            wait_until(lambda: "unacked" not in host.run("ss --no-header --tcp --info state established"))
            with_program(host, backend, f"{command}; locked repair")
            connection.stdin.write("still here\n")
            connection.stdin.flush()
            assert connection.stdout.readline() == "still here\n"


@pytest.mark.parametrize("program", ["nft", "legacy"])
def test_connections_that_are_open_before_the_rules_stay(tmp_path: Path, program: str) -> None:
    """A host without other rules begins to track connections with these. The join's own connection is one of them."""
    with started_host(tmp_path, program) as host, host.connection() as connection:
        assert connection.stdin and connection.stdout and connection.stdout.readline() == "application\n"
        host.run("locked turn_on; locked turn_dns_on")
        connection.stdin.write("still here\n")
        connection.stdin.flush()
        assert connection.stdout.readline() == "still here\n"
        assert host.answer() == "agent", "new ones are redirected"
        assert [rule for rule in host.rules() if "istio-vm-mesh" in rule] == [], "no rule is left that was for the change alone"


def test_a_change_of_the_rules_that_was_killed_leaves_none(host: Host, backend: str) -> None:
    with_program(host, backend, "leave_connections -I $program; locked turn_off")
    assert [rule for rule in host.rules() if "istio-vm-mesh" in rule] == []


def test_dns_bypasses_the_agent_until_it_has_the_name_table(host: Host, backend: str) -> None:
    redirected = istio(host)
    host.run("locked turn_off; locked turn_on")
    bypassed = istio(host)
    extra = [rule.split(maxsplit=1)[1] for rule in bypassed if rule not in redirected]
    assert extra == [
        "raw ISTIO_INBOUND -p udp -m udp --sport 53 -j RETURN",
        "raw ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j RETURN",
        "nat ISTIO_OUTPUT -p tcp -m tcp --dport 53 -j RETURN",
        "nat ISTIO_OUTPUT -p udp -m udp --dport 53 -j RETURN",
    ]
    with_program(host, backend, f"{FLUSHES['chains']}; locked repair")
    assert istio(host) == bypassed
    with_program(host, backend, f"{FLUSHES['raw']}; $program -t nat -D ISTIO_OUTPUT 1; locked turn_dns_on; locked repair")
    assert istio(host) == redirected


LOOKS = """
repair() { echo looked; }
compare_rules 1
listens() { awk -v nft="$(pgrep --parent $$ nft)" '$2 == 12 && $3 == nft && $4 + 0' /proc/net/netlink | grep -q .; }
until listens; do sleep 0.1; done # its own nft, and not that of a guard before it
compare_rules 2; compare_rules 3
reported() { until read -r -t 0 -u "$REPORTS"; do sleep 0.1; done; }
"""
"""A guard that has just started looks twice."""


def test_the_guard_looks_again_only_where_something_changed(host: Host, backend: str) -> None:
    """With ten thousand rules a look takes long. What nft reports of one change may come in two parts, each of which is a change."""
    reported = "reported" if backend == "nft" else "true"
    never, once, always = {2}, {3, 4, 5}, {6}
    changes = {
        "": never,
        f"$program -A INPUT -p tcp --dport 9 -j ACCEPT; {reported}": once,
        f"$program -t nat -F ISTIO_INBOUND; {reported}": once,
        "nft add table inet other; reported": once,
        "ip address add 10.9.0.77/32 dev eth0": once,
        "touch $RULES/bypassed": once,
        "exec 3<>/dev/tcp/10.9.0.1/8080": never,  # counters
        "complain x y 2>/dev/null; trap 'rm $RULES/complaint-x' EXIT": always,
        "kill $(pgrep --parent $$ nft); reported": once,
    }
    host.run("until ! ip address | grep -q tentative; do sleep 0.1; done")
    for change, looks in changes.items():
        output = with_program(host, backend, f"{LOOKS} {change}\nfor round in 4 5 6 7; do compare_rules $round; done")
        assert output.count("looked") in looks, change
    once_a_minute = f"{LOOKS} compare_rules 11; compare_rules 12; compare_rules 13"
    assert with_program(host, backend, once_a_minute).count("looked") == 3


def test_the_guard_does_not_bring_back_what_the_unit_removes(host: Host) -> None:
    with host.guard() as guard:
        host.run("locked turn_off; sleep 1")
        assert (istio(host), host.run("check")) == ([], "no traffic is redirected\n")
        host.run("locked turn_on")
        guard.kill()
        assert guard.stdout and guard.stdout.read() == ""


def test_rules_that_cannot_be_put_back_are_named_once(host: Host, backend: str) -> None:
    add_program(host.root / "bin", f"iptables-{backend}-restore", "exit 4")
    try:
        with_program(host, backend, FLUSHES["nat"])
        output = host.run("locked repair 2>&1; locked repair 2>&1")
    finally:
        (host.root / "bin" / f"iptables-{backend}-restore").unlink()
    assert output == f"cannot put missing rules of the redirection back (iptables-{backend})\n"
    assert re.search(r"put \d\d missing", host.run("locked repair"))


def test_rules_are_removed_once_another_program_releases_the_lock(host: Host, backend: str) -> None:
    """Rules that stay lead to an agent that has ended: the machine answers nobody, and calls nobody."""
    program, attempts = f"iptables-{backend}-restore", host.root / "attempts"
    add_program(host.root / "bin", program, f'echo x >>{attempts}; [ $(wc -l <{attempts}) -gt 2 ] && exec /usr/sbin/{program} "$@"; exit 4')
    try:
        host.run("locked turn_off 2>&1")
    finally:
        (host.root / "bin" / program).unlink()
        attempts.unlink()
    assert (istio(host), host.answer()) == ([], "application")


FULL = "mount -t tmpfs -o size=4k none /tmp && head -c 1m /dev/zero >/tmp/full 2>/dev/null || true; "


def test_a_full_disk_keeps_no_rule_on_a_host_with_many(host: Host, backend: str, tmp_path: Path) -> None:
    """bash writes a long text to a file (`<<<`), by default in /tmp. Rules that stay lead to an agent that has ended."""
    many = "".join(f"-A INPUT -s 10.1.{number // 250}.{number % 250} -m comment --comment many -j DROP\n" for number in range(2000))
    with_program(host, backend, f"$program-restore --noflush <<<$'*filter\n{many}COMMIT\n'".replace("\n", "\\n"))
    for script in ("redirect.sh", "redirect_firewall.sh"):
        text = (SCRIPTS / script).read_text()
        (tmp_path / script).write_text(re.sub("=/(run|var/lib)/", "=/mnt/", text))
    try:
        assert istio(host)
        host.run(f"mount --bind {tmp_path} /mnt; {FULL} bash /mnt/redirect.sh off")
        assert (istio(host), host.answer()) == ([], "application")
    finally:
        with_program(host, backend, "$program -F INPUT")


def test_rules_that_cannot_be_removed_are_named(host: Host, backend: str) -> None:
    add_program(host.root / "bin", f"iptables-{backend}-restore", "exit 4")
    try:
        output = host.run("REMOVAL_S=0; locked turn_off 2>&1")
    finally:
        (host.root / "bin" / f"iptables-{backend}-restore").unlink()
    assert output == f"cannot remove the rules of the redirection (iptables-{backend})\n"


def test_only_connections_of_the_proxys_user_and_group_go_past_it(host: Host) -> None:
    """By default Istio takes a user of /etc/passwd, and the group with its number, which may be another program's."""
    add_program(host.root / "bin", "id", 'case $* in "-u istio-proxy") echo 987 ;; "-g istio-proxy") echo 4321 ;; esac')
    try:
        host.run("locked turn_off; locked turn_on")
    finally:
        (host.root / "bin" / "id").unlink()
    owners = {word for rule in istio(host) for word in re.findall(r"--[ug]id-owner \d+", rule)}
    assert owners == {"--uid-owner 987", "--gid-owner 4321"}


def test_a_start_whose_rules_are_made_by_half_fails(host: Host, backend: str) -> None:
    """Without the bypass, names would not resolve until the agent has the table."""
    host.run("locked turn_off")
    fails = "bypass() { (exit 4); }; locked turn_on || echo failed"
    assert host.run(fails).splitlines()[-1:] == ["failed"]


def test_rules_of_nftables_in_the_same_table_do_not_hide_ours(bare_host: Host) -> None:
    """iptables-save shows nothing of a table in which a rule is none of iptables'."""
    host = bare_host
    host.run(f"iptables-nft -t nat -N ANY; nft {FOREIGN_NATIVE.replace('PREROUTING', 'ANY')}; locked turn_on; locked turn_dns_on")
    native = host.run("nft list table ip nat")
    assert (host.answer(), host.run("check"), host.run("locked repair")) == ("agent", "", "")
    assert "dport 53 return" not in native
    host.run("nft flush chain ip nat ISTIO_INBOUND")
    assert (host.answer(), host.run("check")) == ("application", "rules of iptables-nft are missing\n")
    assert "made the redirection again" in host.run("locked repair")
    again = host.run("nft list table ip nat")
    assert (host.answer(), host.run("check"), again.count("jump"), "dport 53 return" in again) == ("agent", "", native.count("jump"), False)
    host.run("locked turn_off")
    left = host.run("nft list ruleset")
    assert "ISTIO" not in left and "redirect to :9001" in left


def test_a_rule_of_nftables_that_is_added_later_costs_nothing(bare_host: Host) -> None:
    bare_host.run(f"locked turn_on; locked turn_dns_on; nft {FOREIGN_NATIVE}")
    before = bare_host.run("nft list table ip nat")
    assert (bare_host.run("locked repair"), bare_host.run("check")) == ("", "")
    assert bare_host.run("nft list table ip nat") == before
    bare_host.run("nft flush ruleset; locked repair")
    assert (bare_host.answer(), bare_host.run("check")) == ("agent", "")


def test_hosts_whose_programs_name_no_backend_are_repaired_and_cleaned(bare_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "plain"
    directory.mkdir()
    for place in ("/usr/bin", "/usr/sbin"):
        for path in Path(place).iterdir():
            if not re.match(r"(ip6?tables|xtables)-(legacy|nft)|nft$", path.name) and not (directory / path.name).exists():
                (directory / path.name).symlink_to(path)
    agent = re.sub(r"--force-iptables-binary \w+", "", (bare_host.root / "bin" / "pilot-agent").read_text())
    (directory / "pilot-agent").write_text(agent)
    (directory / "pilot-agent").chmod(0o755)
    bare_host.environment["PATH"] = str(directory)
    plain = f"PATH={directory} AGENT={directory}/pilot-agent"
    assert bare_host.run(f"{plain}; programs") == "iptables\nip6tables\n"
    bare_host.run(f"{plain}; locked turn_on; locked turn_dns_on")
    assert bare_host.answer() == "agent"
    output = bare_host.run(f"{plain}; iptables -t nat -F; locked repair")
    assert re.fullmatch(r"put \d\d missing rules of the redirection back \(iptables: nat\)\n", output)
    assert bare_host.answer() == "agent"
    bare_host.run(f"{plain}; locked turn_off")
    assert (istio(bare_host), bare_host.answer()) == ([], "application")


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_rules_stay_in_the_backend_of_the_hosts_iptables(bare_host: Host, tmp_path: Path, backend: str) -> None:
    """Docker's rules are there. `istio-iptables` alone moves to legacy iptables once its own first run has made a table of it."""
    agent = re.sub(r"--force-iptables-binary \w+", "", (bare_host.root / "bin" / "pilot-agent").read_text())
    add_program(tmp_path, "pilot-agent", agent.partition("\n")[2])
    add_program(tmp_path, "iptables", f'exec iptables-{backend} "$@"')
    bare_host.environment["PATH"] = f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"
    for _ in range(2):
        bare_host.run(f"AGENT={tmp_path}/pilot-agent; locked turn_off; locked turn_on")
        assert {rule.split()[0] for rule in istio(bare_host)} <= {f"iptables-{backend}", f"ip6tables-{backend}"}
        assert bare_host.answer() == "agent"


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_ipv6_is_repaired_too(tmp_path: Path, backend: str) -> None:
    with started_host(tmp_path, backend, families=(6,)) as host:
        host.run("locked turn_on; locked turn_dns_on")
        before = istio(host)
        assert host.answer(family=6) == "agent"
        host.run(f"ip6tables-{backend} -t nat -F")
        assert host.answer(family=6) == "application"
        assert f"(ip6tables-{backend}: nat)" in host.run("locked repair")
        assert (istio(host), host.answer(family=6)) == (before, "agent")
        host.run("locked turn_off")
        assert istio(host) == []


def test_an_interface_that_is_left_out_stays_so(bare_host: Host) -> None:
    bare_host.environment["ISTIO_EXCLUDE_INTERFACES"] = "eth0"
    bare_host.run("locked turn_on; locked turn_dns_on")
    before = bare_host.rules()
    assert bare_host.answer() == "application"
    bare_host.run("iptables-nft -t nat -D ISTIO_INBOUND -i eth0 -j RETURN")
    assert bare_host.answer() == "agent"
    bare_host.run("locked repair")
    assert (bare_host.answer(), bare_host.rules()) == ("application", before)
    bare_host.run("locked turn_off")
    assert not [rule for rule in bare_host.rules() if "eth0" in rule]


def close(host: Host) -> None:
    host.environment["FAIL_CLOSED"] = "1"


def drops(host: Host, port: int = 8080, family: int = 4) -> bool:
    return host.answer(port, family, seconds=0.5) == ""


def test_captured_ports_are_closed_whenever_nothing_redirects(bare_host: Host) -> None:
    host = bare_host
    close(host)
    with host.guard():
        host.run("ready")
        assert drops(host) and [host.answer(port) for port in (22, 15021)] == ["ssh", "health"]
        host.run("locked turn_on")
        assert host.answer() == "agent"
        host.run("locked turn_off")
        assert drops(host)
        host.run("locked turn_on; nft flush ruleset")
        # Not the application, in any moment until the guard has put the rules back.
        answers: set[str] = set()

        def is_answered() -> bool:
            answers.add(host.answer(seconds=0.5))
            return answers != {""}

        wait_until(is_answered, interval=0)
        assert answers <= {"", "agent"} and host.answer() == "agent"
        wait_until(lambda: host.run("locked check_all") == "")
    wait_until(lambda: host.answer() == "agent")
    wait_until(lambda: host.run("check_all") == "ports that are not redirected are open\n")


def test_another_program_cannot_open_the_closed_ports(bare_host: Host) -> None:
    close(bare_host)
    with bare_host.guard():
        bare_host.run("ready")
        for command in ("nft flush ruleset", "nft delete table inet istio_vm_mesh", "nft flush table inet istio_vm_mesh", "iptables -F"):
            bare_host.run(f"{command} || true")
            assert drops(bare_host), command


def test_a_foreign_redirection_does_not_open_a_captured_port(bare_host: Host) -> None:
    close(bare_host)
    with bare_host.guard():
        bare_host.run("ready; iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080")
        assert drops(bare_host, 80)


def publish(host: Host, address: str) -> None:
    """Publish port 8080 of an address for a container, as engines do; the container answers at port 80."""
    host.run(f"iptables-nft -t nat -A PREROUTING -p tcp -d {address} --dport 8080 -j DNAT --to-destination {CONTAINER}:80")
    host.enter_neighbour(f"ip route replace {address} via {ADDRESS[4]}" if address != ADDRESS[4] else "true")


def test_a_port_that_is_published_for_a_container_is_closed_too(bare_host: Host) -> None:
    """What is addressed to others is not: a host may forward to more than its own containers."""
    host = bare_host
    close(host)
    with host.container():
        publish(host, ADDRESS[4])
        publish(host, "10.9.9.9")
        assert host.answer() == "container"
        with host.guard():
            host.run("ready")
            assert drops(host)
            assert answer_of(host.neighbour, "10.9.9.9", 8080, 10) == "container"
            host.run("ip address add 10.9.9.9/32 dev eth0")
            wait_until(lambda: answer_of(host.neighbour, "10.9.9.9", 8080, 0.5) == "", description="the new address is closed, too")
            host.environment["ISTIO_LOCAL_EXCLUDE_PORTS"] = "22,8080"
        with host.guard():
            host.run("ready")
            assert host.answer() == "container", "a port that is not captured"
        assert host.answer() == "container"


def test_only_new_connections_from_outside_are_closed(bare_host: Host) -> None:
    close(bare_host)
    with bare_host.connection() as connection:
        assert connection.stdin and connection.stdout and connection.stdout.readline() == "application\n"
        with bare_host.guard():
            bare_host.run("ready")
            assert drops(bare_host)
            connection.stdin.write("still here\n")
            connection.stdin.flush()
            assert connection.stdout.readline() == "still here\n"
            local = "exec 3<>/dev/tcp/10.9.0.1/8080; head -n 1 <&3"
            assert bare_host.run(f"timeout 20 bash -c '{local}'") == "application\n"
            assert bare_host.returned() == "sent\n"


def test_closed_ports_are_closed_for_ipv6_too(tmp_path: Path) -> None:
    with started_host(tmp_path, "nft", families=(4, 6)) as host:
        close(host)
        with host.guard():
            host.run("ready")
            assert (drops(host, family=6), host.answer(22, family=6)) == (True, "ssh")
            host.run("locked turn_on")
            assert (host.answer(family=6), host.answer()) == ("agent", "agent")


def test_ssh_stays_open_on_each_of_its_ports(bare_host: Host) -> None:
    close(bare_host)
    sshd = bare_host.root / "ssh" / "sshd_config"
    sshd.parent.mkdir()
    sshd.write_text("# Port 99\nPort 2022\nport=2122\n")
    try:
        bare_host.environment["SSH_CONNECTION"] = "192.0.2.1 50000 192.0.2.7 2222"
        bare_host.run("env --unset=SSH_CONNECTION bash -c 'source $0; STATE=$1; store_ssh_port' $SCRIPT $STATE; true")
        del bare_host.environment["SSH_CONNECTION"]
        assert bare_host.run('open_ports "$(rules_of_ports)"') == "22,2022,2122,2222,15020,15021,15090\n"
        with bare_host.guard():
            bare_host.run("ready")
            assert (bare_host.answer(2222), drops(bare_host)) == ("ssh on another port", True)
            bare_host.run("locked turn_on")
            assert (bare_host.answer(2222), bare_host.answer(8080)) == ("ssh on another port", "agent")
    finally:
        sshd.unlink()
        sshd.parent.rmdir()
        (bare_host.root / "ssh-port").unlink()


LEAD_TO_SSH = (
    "iptables-nft -t nat -A PREROUTING -p tcp --dport 2022 -j REDIRECT --to-ports 22",
    "iptables-legacy -t nat -A PREROUTING -p tcp --dport 2022 -j REDIRECT --to-ports 22",
    f"iptables-nft -t nat -A PREROUTING -p tcp -d {ADDRESS[4]} -m multiport --dports 80,2020:2022 -j DNAT --to-destination {ADDRESS[4]}:22",
    "nft 'add table inet x; add chain inet x p { type nat hook prerouting priority dstnat; }; add rule inet x p tcp dport { 443, 2022 } redirect to :22'",
)


@pytest.mark.parametrize("rule", LEAD_TO_SSH)
def test_ports_that_rules_of_the_host_lead_to_ssh_stay_open(bare_host: Host, rule: str) -> None:
    """The join saw SSH's own port: a second connection by the other one would not have confirmed it."""
    bare_host.run(rule)
    assert bare_host.answer(2022) == "ssh"
    bare_host.run("locked turn_on; locked turn_dns_on")
    assert (bare_host.answer(2022), bare_host.answer()) == ("ssh", "agent")


def test_a_port_that_leads_to_ssh_of_another_host_is_captured(bare_host: Host) -> None:
    bare_host.run(f"iptables-nft -t nat -A PREROUTING -p tcp --dport 2022 -j DNAT --to-destination {CONTAINER}:22")
    assert "2022" not in bare_host.run('open_ports "$(rules_of_ports)"')


MULTIPLEXER = """
import pathlib, socket, sys
pathlib.Path("/proc/self/comm").write_text(sys.argv[1])
listeners = [socket.create_server(place) for place in (("0.0.0.0", 443), ("0.0.0.0", 9443), ("127.0.0.1", 8443))]
onward = socket.create_connection(("127.0.0.1", 22))
print(onward.getsockname()[1], flush=True)
input()
"""


@pytest.mark.parametrize(("name", "ports"), [("sslh", ["22", "443"]), *((name, ["22"]) for name in ("sshd", "sshd-session", "dropbear"))])
def test_ports_of_a_program_that_passes_connections_on_to_ssh_stay_open(bare_host: Host, name: str, ports: list[str]) -> None:
    """For sshd they come from this host. The program may serve the workload, too. Sessions of a jump host listen for `ssh -R`."""
    bare_host.environment["ISTIO_META_POD_PORTS"] = '"containerPort":9443'
    with running([*enter(bare_host.namespace), sys.executable, "-c", MULTIPLEXER, name]) as program:
        assert program.stdout
        port = program.stdout.readline().strip()
        assert bare_host.run(f"ssh_ports 127.0.0.1 {port} 127.0.0.1 22").split() == ports
    assert bare_host.run("ssh_ports 192.0.2.1 50000 192.0.2.7 2222; ssh_ports ::1 50000 ::1 22").split() == ["2222", "22"]


FORWARDER = """
import os, pathlib, signal, socket, sys
server, session = sys.argv[1:]
name = lambda comm: pathlib.Path("/proc/self/comm").write_text(comm)
name(server)
ssh = socket.create_server(("", 2022))
if not os.fork():
    signal.pause()  # a child that was just started
if os.fork():
    os.wait()
else:
    ssh.close()
    name(session)
    forwarded = [socket.create_server(("", port)) for port in (9001, 9002)]
    print("ready", flush=True)
    input()
"""


@pytest.mark.parametrize("session", ["sshd", "sshd-session", "dropbear"])
def test_ports_that_a_client_of_ssh_forwards_are_captured(bare_host: Host, session: str) -> None:
    """With `GatewayPorts`, a client has sshd listen for others (`ssh -R`)."""
    with running([*enter(bare_host.namespace), sys.executable, "-c", FORWARDER, session.partition("-")[0], session]) as program:
        assert program.stdout and program.stdout.readline() == "ready\n"
        assert bare_host.run('open_ports "$(rules_of_ports)"') == "22,2022,15020,15021,15090\n"


def test_rules_that_are_loaded_while_the_agent_is_stopped_go_again(bare_host: Host) -> None:
    """They were saved while it ran, and lead to ports at which nothing listens now."""
    host = bare_host
    host.run("locked turn_on; locked turn_dns_on; iptables-save >$STATE/rules.v4; locked turn_off; iptables-restore <$STATE/rules.v4")
    assert host.answer() == "agent"
    with host.guard() as guard:
        wait_until(lambda: istio(host) == [])
        assert host.answer() == "application"
        guard.kill()
        assert guard.stdout and "that another program loaded (iptables-nft)" in guard.stdout.read()
    host.run("locked turn_on; locked remove_stale")
    assert istio(host), "they are to be there"


SAVES = {
    "iptables-save": 'iptables-save >"$file"',
    "nft list ruleset": 'nft list ruleset >"$file"',
    "of a firewall that was opened": 'echo "-A INPUT -p tcp --dport 15006 -m comment --comment istio-vm-mesh -j ACCEPT" >"$file"',
}


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES.keys())
def test_files_with_rules_of_the_redirection_are_named(bare_host: Host, save: str) -> None:
    host = bare_host
    directory = host.root / "iptables rules"
    directory.mkdir()
    places = 'SAVED_RULES=("$STATE/iptables rules" /not/there); file="$STATE/iptables rules/rules.v4";'
    try:
        host.run(f"locked turn_on; locked turn_dns_on; {places} echo ':OTHER - [0:0] -j ISTIO_POSTRT' >\"$file\"")
        assert host.run(f"{places} saved_rules; check") == ""
        host.run(places + save)
        assert host.run(f"{places} saved_rules") == f"{directory}/rules.v4\n"
        assert host.run(f"{places} check").startswith(f"{directory}/rules.v4 has rules of the redirection")
    finally:
        shutil.rmtree(directory)


def test_a_guard_ends_with_its_table_so_that_the_unit_starts_it_again(bare_host: Host) -> None:
    close(bare_host)
    with bare_host.guard() as guard:
        bare_host.run("ready")
        find = ["pgrep", "--session", str(guard.pid), "--full", "^nft --interactive"]
        (holder,) = subprocess.run(find, capture_output=True, text=True).stdout.split()
        os.kill(int(holder), 9)
        assert guard.wait() == -15


def test_a_join_learns_whether_a_host_can_close_ports(bare_host: Host) -> None:
    assert bare_host.run("possible; bash -s possible <${SCRIPT%/*}/redirect_guard.sh") == ""
    assert "istio_vm_mesh" not in bare_host.run("nft list ruleset")
    add_program(bare_host.root / "bin", "nft", '[ "$1" != --interactive ] || cat >/dev/null')  # deletes what another process has
    try:
        assert bare_host.run("(possible) || true") == "nftables has no tables with an owner here: it needs Linux 5.12 and nftables 1.0\n"
    finally:
        (bare_host.root / "bin" / "nft").unlink()
    without = "command() { [ $2 != nft ] && builtin command $*; }; (possible) || true"
    assert bare_host.run(without) == "'nft' is missing: install nftables\n"
