"""The container runtime of the lab's own engine, for machines on which even root lacks some
capabilities.

`docker run --privileged` requests every capability of the kernel. Where one is missing from root's
bounding set (CAP_SYS_RESOURCE in many sandboxes and nested containers), runc refuses the whole
container: "unable to apply caps: operation not permitted". Docker has no setting for that, so a
wrapper removes the missing ones from Docker's request and then executes runc.
"""

from __future__ import annotations

from pathlib import Path

# In the order of their numbers: include/uapi/linux/capability.h of the kernel.
_NAMES = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
"""
CAPABILITIES = tuple(f"CAP_{name.upper()}" for name in _NAMES.split())

# A shell and sed, because this runs for every `docker exec`: 2 ms instead of an interpreter's 20.
# runc's documents are JSON on one line. The object "capabilities" holds only lists of names, so its
# first closing brace is its end. The same words within a string have backslashes before their
# quotes, so they do not match. A container's specification is in its bundle, that of an exec in
# the --process file.
_WRAPPER = r"""#!/bin/sh
# Executes runc without the capabilities that this machine does not have.
command= file= bundle=.
previous=
for argument; do
    case $previous in
        --bundle | -b) bundle=$argument ;;
        --process | -p) file=$argument ;;
    esac
    case $argument in
        --bundle=*) bundle=${argument#*=} ;;
        --process=*) file=${argument#*=} ;;
        create | run | restore | exec) command=${command:-$argument} ;;
    esac
    previous=$argument
done
case $command in
    create | run | restore) file=$bundle/config.json ;;
    exec) ;;
    *) file= ;;
esac
if [ -n "$file" ] && [ -f "$file" ]; then
    sed -i -E \
        -e ':again' -e 's/("capabilities":\{[^}]*)"(@CAPABILITIES@)",?/\1/' -e 't again' \
        -e ':comma' -e 's/("capabilities":\{[^}]*),\]/\1]/' -e 't comma' \
        "$file"
fi
exec @RUNC@ "$@"
"""


def missing(status: str | None = None, last: int | None = None) -> list[str]:
    """Return the capabilities that the kernel has and this process's bounding set lacks.

    `status` is the text of /proc/self/status, `last` the number of the newest capability; both are
    read from this machine by default.
    A capability newer than this table is not reported: no engine requests it yet.
    """
    status = Path("/proc/self/status").read_text() if status is None else status
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text()) if last is None else last
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    return [name for number, name in enumerate(CAPABILITIES[: last + 1]) if not bounding >> number & 1]


def wrapper(capabilities: list[str], runc: str = "runc") -> str:
    """Return the text of the runtime that executes `runc` without these capabilities (at least
    one).
    """
    return _WRAPPER.replace("@CAPABILITIES@", "|".join(capabilities)).replace("@RUNC@", runc)
