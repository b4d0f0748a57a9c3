"""What a machine is, as text: its files, units, users, packages, rules, addresses, routes and sysctls.

Two manifests of a machine are compared. What may differ is in docs/machines.md, in a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from tools import ROOT

Manifest = dict[str, str]
"""By `<section> <name>`, what it is."""

DOCUMENT = ROOT / "docs" / "machines.md"
EXCEPTIONS_TITLE = "| what a leave leaves | why |"
"""The head of the table of what may differ, whose first column has names between backticks."""

PASSED_OVER = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/cache", "/var/lib/dpkg", "/var/lib/apt")
"""Directories of which nothing is compared."""

# Counters, and what the kernel and other hosts change: the kernel is that of all containers.
_VOLATILE = (
    "fs.*-nr", "fs.*-state", "fs.quota.*", "fs.inotify.*", "kernel.cad_pid", "kernel.ns_last_pid", "kernel.perf_*", "kernel.pty.nr", "kernel.random.*", "kernel.sched_domain.*",
    "net.netfilter.nf_conntrack_count", "kernel.tainted", "vm.*_bytes", "net.ipv4.tcp_mem", "net.ipv4.tcp_fastopen_key", "net.ipv4.udp_mem",
)  # fmt: skip

# Units that come and go with logins and jobs; a container has no terminal.
_PASSING_UNITS = (
    "getty@*",
    "session-*",
    "user@*",
    "user-runtime-dir@*",
    "run-*",
    "systemd-hostnamed*",
    "systemd-timedated*",
    "systemd-tmpfiles-clean*",
)

_OF_A_BOOT = ("/var/tmp/systemd-private-*",)
"""What systemd makes anew at each boot."""
_OF_THE_ENGINE = re.compile(r" DOCKER_(OUTPUT|POSTROUTING)$")
"""Chains of the engine that the machine is a container of: they have other ports after each start."""

_FIND = f"find / -xdev \\( -path {' -o -path '.join(PASSED_OVER)} \\) -prune -o"
_SCRIPT = f"""\
export LC_ALL=C
section() {{ sed "s\x01^\x01$1\t\x01"; }}
{_FIND} -printf '%p\\t%y %m %u:%g %l\\n' | section file
{_FIND} -type f -print0 | xargs -0 sha256sum | awk '{{ print substr($0, 67) "\\t" $1 }}' | section content
systemctl list-unit-files --no-legend --plain | awk '{{ print $1 "\\t" $2 }}' | section unit-file
systemctl list-units --no-legend --plain --state=active,failed --type=service,socket,timer,path | awk '{{ print $1 "\\t" $3 }}' | section unit
getent passwd | awk -F : '{{ print $1 "\\t" $0 }}' | section user
getent group | awk -F : '{{ print $1 "\\t" $0 }}' | section group
dpkg-query --show --showformat '${{Package}}\\t${{Version}} ${{Status}}\\n' | section package
for program in ip{{,6}}tables-{{legacy,nft}}; do $program-save 2>/dev/null | awk '{{ print NR "\\t" $0 }}' | section "rules-of-$program"; done
nft list ruleset 2>/dev/null | awk '{{ print NR "\\t" $0 }}' | section rules-of-nft
ip -o link show | awk '{{ sub(/@if.*/, "", $2); print $2 "\\t" $3 }}' | section link
ip -o address show | sed -E 's/ valid_lft.*//; s/^[0-9]+: *//; s/ tentative//' | awk '{{ print $0 "\\tthere" }}' | section address
{{ ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule; }} | sed 's/ *$//; s/\t/ /g' | awk '{{ print $0 "\\tthere" }}' | section route
sysctl --all 2>/dev/null | sed 's/\t/ /g; s/ = /\t/' | section sysctl
"""


def take(run: Callable[[str], str]) -> Manifest:
    """Return a machine's manifest. run: runs a script on it, as root, and returns its output."""
    return parse(run(_SCRIPT))


def parse(text: str) -> Manifest:
    """Return the manifest of what the script printed: lines of a section, a name and a value, between tabs."""
    manifest: Manifest = {}
    rules: dict[str, list[str]] = {}
    for line in text.splitlines():
        section, name, value = (*line.split("\t", 2), "", "")[:3]
        if section.startswith("rules-of-"):
            rules.setdefault(section, []).append(value)
        elif not _is_passing(section, name):
            manifest[f"{section} {name}"] = value
    for section, lines in rules.items():
        of_section = _nft_rules(lines) if section == "rules-of-nft" else _iptables_rules(lines)
        by_chain: dict[str, list[str]] = {}
        for chain, rule in of_section:
            if _OF_THE_ENGINE.search(chain):
                continue
            by_chain.setdefault(f"{section} {chain}", []).append(rule)
        manifest |= {chain: "\n".join(its_rules) for chain, its_rules in by_chain.items()}
    return manifest


def _is_passing(section: str, name: str) -> bool:
    patterns = {"file": _OF_A_BOOT, "sysctl": _VOLATILE, "unit": _PASSING_UNITS, "unit-file": _PASSING_UNITS}.get(section, ())
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _iptables_rules(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield table and chain, and each rule; a built-in chain where it has one, or drops."""
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            if policy != "ACCEPT":
                yield f"{table} {chain}", policy
        elif line.startswith("-A "):
            yield f"{table} {line.split()[1]}", line


def _nft_rules(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield family, table and chain, and each rule without its counters; a base chain where it has one, or drops."""
    table = chain = ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text = re.sub(r"counter packets \d+ bytes \d+ ?", "", line.strip())
        if match := re.fullmatch(r"table (\S+ \S+) \{", text):
            table, chain = match[1], ""
        elif match := re.fullmatch(r"(?:chain|set|map|flowtable) (\S+) \{", text):
            chain = match[1]
            if not following.strip().startswith("type "):
                yield f"{table} {chain}", "is there"
        elif text not in ("", "}") and not text.endswith("policy accept;"):
            yield f"{table} {chain}", text


def differences(before: Mapping[str, str], after: Mapping[str, str], allowed: list[str]) -> list[str]:
    """Return what differs, one line each. allowed: patterns of names that may differ."""
    lines = []
    for name in sorted({*before, *after}):
        one, other = before.get(name, "nothing"), after.get(name, "nothing")
        if one != other and not any(fnmatchcase(name.partition(" ")[2], pattern) for pattern in allowed):
            lines.append(f"{name}: {one} before, {other} after")
    return lines


def exceptions() -> list[str]:
    """Return the patterns of the table in docs/machines.md."""
    _, _, table = DOCUMENT.read_text().partition(EXCEPTIONS_TITLE)
    assert table, f"{DOCUMENT} has no table {EXCEPTIONS_TITLE!r}"
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
