"""A machine that was used for years before it joins a mesh: what is set up on it, as root, once.

Its application runs in a container. That container consists of a network namespace, a bridge, rules
that publish its port, and a program in place of docker-proxy. A container engine does not run
inside of the container that the machine is.
"""

from __future__ import annotations

import shlex

from components.names import INBOUND_PORT

PROXY = "http://127.0.0.1:3128"
"""A proxy of the site, which does not answer: what uses it by mistake fails."""
METRICS_PORT = 9100
LOCAL_PORT = 5000
"""A service that listens on 127.0.0.1 alone, for the machine itself."""
CONTAINER_ADDRESS = "172.29.9.2"
NAMESPACE = "application"
"""The network namespace that stands for the container."""
ADDRESS, IPV6_ADDRESS = "192.0.2.10", "fd00:9:1::10"
"""The machine's in the network of the second interface."""
OFFICE = "office"
"""The network namespace that stands for a host in the network of the second interface."""

FIREWALL = f"""\
#!/usr/sbin/nft -f
table inet site
delete table inet site

table inet site {{
	chain input {{
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif "lo" accept
		meta l4proto {{ icmp, ipv6-icmp }} accept
		tcp dport {{ 22, 2222, 9100 }} accept
		tcp dport {INBOUND_PORT} accept comment "redirected connections, for the mesh"
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
		iifname "site0" accept
	}}
}}
"""

NETWORK = f"""\
#!/bin/bash
set -eu
sysctl --quiet --load=/etc/sysctl.d/site.conf
ip netns add {OFFICE}
ip link add site1 address 02:00:00:00:01:0a type veth peer name eth0 netns {OFFICE}
ip address add {ADDRESS}/24 dev site1
ip link set site1 up
ip address add {IPV6_ADDRESS}/64 dev site1 nodad
ip -n {OFFICE} address add 192.0.2.1/24 dev eth0
ip -n {OFFICE} address add fd00:9:1::1/64 dev eth0 nodad
ip -n {OFFICE} link set eth0 up
ip route add 198.18.0.0/15 via 192.0.2.1 metric 500
ip address add fd00:9::10/64 dev eth0 nodad
ip netns add {NAMESPACE}
ip link add site0 address 02:00:00:00:00:01 type bridge
ip address add 172.29.9.1/24 dev site0
ip link set site0 up
ip link add veth-site address 02:00:00:00:00:03 type veth peer name eth0 netns {NAMESPACE}
ip link set veth-site master site0 up
ip -n {NAMESPACE} address add {CONTAINER_ADDRESS}/24 dev eth0
ip -n {NAMESPACE} link set eth0 up
ip -n {NAMESPACE} link set lo up
ip -n {NAMESPACE} route add default via 172.29.9.1
iptables-restore --noflush <<'RULES'
*nat
:SITE-PUBLISHED - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j SITE-PUBLISHED
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j SITE-PUBLISHED
-A POSTROUTING -s 172.29.9.0/24 ! -o site0 -j MASQUERADE
-A SITE-PUBLISHED ! -i site0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {CONTAINER_ADDRESS}:8080
COMMIT
*filter
:SITE-GUESTS - [0:0]
-A INPUT -s 198.51.100.0/24 -m comment --comment "no ISTIO_INBOUND" -j SITE-GUESTS
-A SITE-GUESTS -p tcp -m tcp --dport 22 -j DROP
COMMIT
*mangle
-A POSTROUTING -o site1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1300
COMMIT
RULES
"""

_UNITS = {
    "site-network.service": """\
[Unit]
Description=Network of this site: a second interface, IPv6, and the network of a container
After=nftables.service
Before=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/site-network

[Install]
WantedBy=multi-user.target
""",
    "echo.service.d/container.conf": f"""\
[Unit]
Requires=site-network.service
After=site-network.service

[Service]
NetworkNamespacePath=/run/netns/{NAMESPACE}
""",
    "site-published.socket": """\
[Unit]
Description=The published port of the application's container

[Socket]
ListenStream=0.0.0.0:8080

[Install]
WantedBy=sockets.target
""",
    "site-published.service": f"""\
[Unit]
Description=What docker-proxy is to a published port

[Service]
ExecStart=/lib/systemd/systemd-socket-proxyd {CONTAINER_ADDRESS}:8080
""",
    "node_exporter.service": f"""\
[Unit]
Description=Metrics of this machine

[Service]
User=node_exporter
ExecStart=/usr/bin/python3 -m http.server --bind :: --directory /srv/metrics {METRICS_PORT}

[Install]
WantedBy=multi-user.target
""",
    "site-local.service": f"""\
[Unit]
Description=A service for this machine alone

[Service]
DynamicUser=yes
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/metrics {LOCAL_PORT}

[Install]
WantedBy=multi-user.target
""",
}

_FILES = {
    "/etc/nftables.conf": FIREWALL,
    "/usr/local/sbin/site-network": NETWORK,
    "/srv/metrics/metrics": "site_up 1\n",
    "/etc/sysctl.d/site.conf": "net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.rp_filter = 2\nnet.ipv6.conf.all.disable_ipv6 = 0\n",
    "/etc/environment": f"http_proxy={PROXY}\nhttps_proxy={PROXY}\nno_proxy=localhost,host.docker.internal\n",
    **{f"/etc/systemd/system/{name}": text for name, text in _UNITS.items()},
}

_COMMANDS = """\
chmod 0755 /usr/local/sbin/site-network
useradd --system --no-create-home --shell /usr/sbin/nologin node_exporter
usermod --shell /usr/bin/fish admin
su --login admin --command 'sudo true' # fish and sudo write files of their own
systemctl daemon-reload
systemctl enable --quiet nftables site-network site-published.socket node_exporter site-local
systemctl stop echo
systemctl restart nftables site-network echo site-published.socket site-published.service node_exporter site-local
"""


def set_up() -> str:
    """Return the commands that make a machine so. Its image has fish and nftables."""
    lines = ["set -eu"]
    for path, text in _FILES.items():
        lines += [f"mkdir -p {path.rpartition('/')[0]}", f"printf %s {shlex.quote(text)} >{path}"]
    return "\n".join([*lines, _COMMANDS])
