"""Each function of the script that calls, on its own: what it decides, and by what. One bash runs all cases."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.scripts import COMPONENTS, Sourced

SCRIPT = COMPONENTS / "verification" / "scripts" / "call-service.sh"

SETUP = r"""
ulimit -t 2 # of loops without an end
unset SECONDS # time passes by sleep alone
SECONDS=0 deadline=0
ADMIN=admin SERVICE=product.shop.svc PORT=80 PROTOCOL=http URL_PATH=/health EXPECT=200-399 IDENTITY=spiffe://x IDENTITIES=spiffe://x,spiffe://y MODE=fail
CALLER=me NETWORK=pods TIMEOUT_S=0 CALL_TIMEOUT=100 LISTENER='' RANGES='' GATEWAYS='' MACHINES='' CALLS='' TARGETS='' INBOUND=''
caller_identity=spiffe://caller
# Ends loops without an end.
sleep() { if ((++slept > 20)); then echo 'without an end'; exit 9; fi; }
direct_curl() { printf '%s\n' "${clusters[@]}"; }
getent() { case "$1 $2" in
'hosts product.shop.svc') echo 10.96.0.1 ;;
'ahostsv4 gateway.test') printf '192.0.2.%s  %s gateway.test\n' 7 STREAM 7 DGRAM 6 STREAM ;;
*) return 2 ;; esac; }
ip() { echo "10.0.0.9 via 10.0.0.1 dev eth0 src 10.0.0.2"; }
as_proxy() { return 1; }
yes_or_no() { if "$@"; then echo yes; else echo no; fi; }
each_of() { local each; for each in "${@:2}"; do if $1 $each; then printf '%s ' "$each"; fi; done; echo; }
# A connection by which this has come, and which stays open, or is closed.
opened() { mkfifo "$HOME/opened" && exec 3<>"$HOME/opened" && rm "$HOME/opened" && printf "$1" >&3; }
closed() { printf "$1" >"$HOME/closed" && exec 3<"$HOME/closed"; }
# A response, and what is read of it.
heard() { PROTOCOL=$1; ${4-closed} "$3"; read_response "$2"; }
# What a peer sends at first and after a byte, and whether it closes the connection then.
watched() { local at_first=$1 first=$2 later=$3 then=$4; SILENT_S=1 AFTERWARDS_S=2 FIRST_BYTE='\x41'
listen() { if [ "$1" = 1 ]; then printf %s "$at_first"; return $first; else printf %s "$later"; return $then; fi; }
watch_connection 3>"$HOME/sent" | tr '\t' '|'; cat "$HOME/sent"; }
host() { local prefix="outbound|$1|$2|product.shop.svc::$3"; shift 3
while [ $# -gt 0 ]; do clusters+=("$prefix::${1%=*}::${1#*=}"); shift; done; }
has_cluster() { clusters=('outbound|80||product.shop.svc::added_via_api::true'); }
eval "real_$(declare -f call_all)"
# Answers of calls, by what they are sent to.
call_all() { local endpoint status by text; failed=(); attempt=$((attempt + 1)); asked+="[$*]"
[ "$attempt" -lt 25 ] || { echo 'without an end'; exit 9; }
for endpoint; do IFS='|' read -r status by text <<<"$(answer_of "$endpoint")"; count "$endpoint" "$status" "$by" "$text"; done; }
answer_of() { echo '200|application|'; }
# Rows, in short: endpoint, verdict, object, and the beginning of the cause.
# What was sent to the server.
sent() { tr -d '\r' <"$HOME/request" | tr '\0' 0; }
in_short() { print_row() { local -A row=(); while [ $# -gt 0 ]; do row[$1]=$2; shift 2; done
echo "${row[endpoint]}|${row[how]}|${row[verdict]}|${row[object]}|${row[cause]:0:40}"; }; }
time_passes() { sleep() { SECONDS=$((SECONDS + 1)); if ((++slept > 20)); then echo 'without an end'; exit 9; fi; }; SECONDS=0 deadline=4; }
given_are() { read_given() { now=() tried=(); local each; for each in "${there[@]}"; do now[${each%=*}]=${each#*=} tried[${each%=*}]=${each#*=}; done; }; there=("$@"); read_given; }
"""
"""What the cases share: variables of a target, and stand-ins for programs."""

HEAD = r"HTTP/1.1 200 OK\r\n"
OF_GRPC = r"content-type: application/grpc\r\n"
BY_CALLEE = r"x-envoy-upstream-service-time: 3\r\nx-istio-vm-mesh-details: via_upstream\r\n"

CASES: dict[str, tuple[str, str]] = {
    "members: a status of any kind": ("members 200=3 '2\"0=1'", '"200": 3, "2\\"0": 1'),
    "is_http: by the protocol": ("for PROTOCOL in http http2 grpc tcp tls; do yes_or_no is_http; done | paste -sd ' '", "yes yes yes no no"),
    "is_expected: ends of ranges count": ("EXPECT=200-399,404-404,500; each_of is_expected 199 200 399 400 403 404 405 499 500 501", "200 399 404 500"),
    "in_ranges: any of some": (
        "RANGES=10.1.0.0/16,10.3.0.0/24; each_of in_ranges 10.0.255.255:80 10.1.0.0:80 10.1.255.9:80 10.2.0.1:80 10.3.0.9:80 10.3.1.0:80",
        "10.1.0.0:80 10.1.255.9:80 10.3.0.9:80",
    ),
    "in_ranges: none": ("each_of in_ranges 10.1.0.0:80", ""),
    "resolve: an address": ("resolve 192.0.2.9:15443", "192.0.2.9:15443"),
    "resolve: a name, each address once": ("resolve gateway.test:15443 | paste -sd ' '", "192.0.2.6:15443 192.0.2.7:15443"),
    "resolve: an unknown name": ("resolve nowhere.test:15443", ""),
    "listen: silence": ("opened ''; listen 0.2; echo $?", "0"),
    "listen: the end": ("listen 0.2 3</dev/null; echo $?", "1"),
    "listen: bytes": ("opened x; listen 0.2; echo $?", "bytes\n0"),
    "listen: bytes and the end": ("closed x; listen 0.2; echo $?", "bytes\n1"),
    "listen: a zero byte": (r"opened '\0'; listen 0.2; echo $?", "bytes\n0"),
    "listen: bytes without an end": (
        "n=0; read() { text=x; if ((++n > 90)); then echo 'without an end'; exit 9; fi; SECONDS=$((SECONDS + 1)); }; listen 1; echo $?",
        "bytes\n0",
    ),
    "watch_connection: it closes": ("watched '' 1 '' 0", "closed|peer|it closed the connection"),
    "watch_connection: it greets and closes": ("watched bytes 1 '' 0", "bytes|application|"),
    "watch_connection: it stays open": ("watched '' 0 '' 0", "open|application|\nA"),
    "watch_connection: it answers": ("watched '' 0 bytes 0", "bytes|application|\nA"),
    "watch_connection: it answers and closes": ("watched '' 0 bytes 1", "bytes|application|\nA"),
    "watch_connection: it closes at the byte": ("watched '' 0 '' 1", "closed|peer|it closed the connection at the first byte\nA"),
    "watch_connection: it greets": ("watched bytes 0 '' 0", "bytes|application|\nA"),
    "watch_connection: it greets and closes at the byte": ("watched bytes 0 '' 1", "closed|peer|it closed the connection at the first byte\nA"),
    "watch_connection: it speaks on and closes": ("watched bytes 0 bytes 1", "closed|peer|it closed the connection at the first byte\nA"),
    "read_response: of the application": (rf"heard http '' '{HEAD}{BY_CALLEE}\r\n'", "200\tapplication\tvia_upstream"),
    "read_response: names of headers in any case": (
        r"heard grpc '' 'HTTP/1.1 200 OK\r\nX-Envoy-Upstream-Service-Time: 3\r\nContent-Type: application/grpc\r\nGrpc-Status: 5\r\n\r\n'",
        "grpc 5\tapplication\t",
    ),
    "read_response: of a proxy": (rf"heard http '' '{HEAD}x-istio-vm-mesh-details: via_upstream\r\n\r\n'", "200\tproxy\tvia_upstream"),
    "read_response: of the caller's proxy": (
        r"heard http '' 'HTTP/1.1 503 x\r\nx-istio-vm-mesh-failure: TLS\r\nx-envoy-upstream-service-time: 3\r\nx-istio-vm-mesh-details: reset\r\n\r\n'",
        "503\tcaller\tTLS",
    ),
    "read_response: without words": (r"heard http '' 'HTTP/1.1 503 x\r\nx-istio-vm-mesh-failure: -\r\nx-istio-vm-mesh-details: reset\r\n\r\n'", "503\tcaller\treset"),
    "read_response: a name without details": (rf"heard http by-name '{HEAD}x-envoy-upstream-service-time: 3\r\n\r\n'", "200\tapplication\t"),
    "read_response: an interim one": (r"heard http '' 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n'", "204\tproxy\t"),
    "read_response: not its body": (rf"heard http '' '{HEAD}\r\nHTTP/1.1 500 x\r\ngrpc-status: 3\r\n\r\n'", "200\tproxy\t"),
    "read_response: other headers before": (rf"heard http '' '{HEAD}server: x\r\ndate: y\r\n{BY_CALLEE}\r\n'", "200\tapplication\tvia_upstream"),
    "read_response: nothing": ("heard http '' ''", "no answer\tproxy\t"),
    "read_response: nothing for long": (
        "read() { if builtin read -t 0 -u 3; then builtin read \"$@\"; else builtin read \"${@/#100/0.2}\"; fi; }; "
        rf"heard http '' '{HEAD}{BY_CALLEE}' opened",
        "200\tapplication\tvia_upstream",
    ),
    "read_response: trailers of gRPC": (
        rf"heard grpc '' '{HEAD}{BY_CALLEE}{OF_GRPC}\r\n\0\0\0\0\0grpc-status: 12\r\ngrpc-message: none\r\n\r\ngrpc-status: 3\r\n\r\n'",
        "grpc 12\tapplication\tvia_upstream",
    ),
    "read_response: gRPC's head alone": (rf"heard grpc '' '{HEAD}{OF_GRPC}grpc-status: 7\r\n\r\ngrpc-status: 3\r\n\r\n'", "grpc 7\tproxy\t"),
    "read_response: a page about gRPC": (rf"heard grpc '' '{HEAD}content-type: text/html\r\n\r\ngrpc-status: 0\r\n\r\n'", "no grpc\tproxy\t"),
    "read_response: none of gRPC": (rf"heard grpc '' '{HEAD}content-type: text/html\r\n\r\n'", "no grpc\tproxy\t"),
    "read_response: gRPC whose trailers are left out": (
        rf"heard grpc by-name '{HEAD}content-type: application/grpc+proto\r\n\r\n'",
        "grpc unknown\tproxy\t",
    ),
    "read_response: gRPC's proxy": (r"heard grpc '' 'HTTP/1.1 503 x\r\n\r\n'", "503\tproxy\t"),
    "read_response: a status of gRPC from HTTP": (rf"heard http '' '{HEAD}grpc-status: 7\r\n\r\n'", "200\tproxy\t"),
    "read_response: by name, words of a proxy": (
        r"heard http by-name 'HTTP/1.1 403 x\r\nx-envoy-upstream-service-time: 3\r\n\r\nRBAC: access denied'",
        "403\tproxy\t",
    ),
    "read_response: by name, the caller's own failure": (
        r"heard http by-name 'HTTP/1.1 503 x\r\nx-istio-vm-mesh-details: reset\r\n\r\nupstream connect error'",
        "503\tcaller\treset",
    ),
    "read_response: by name, words of the application": (
        r"heard http by-name 'HTTP/1.1 503 x\r\nx-envoy-upstream-service-time: 3\r\n\r\nout of stock'",
        "503\tapplication\t",
    ),
    "read_response: by name, a page about a proxy": (rf"heard http by-name '{HEAD}x-envoy-upstream-service-time: 3\r\n\r\nRBAC: how to'", "200\tapplication\t"),
    "read_response: addressed, words of the application": (rf"heard http '' 'HTTP/1.1 403 x\r\n{BY_CALLEE}\r\nRBAC: mine'", "403\tapplication\tvia_upstream"),
    "read_response: by name, words of a proxy of gRPC": (
        rf"heard grpc by-name '{HEAD}x-envoy-upstream-service-time: 3\r\n{OF_GRPC}grpc-status: 7\r\ngrpc-message: RBAC%%3A access denied\r\n\r\n'",
        "grpc 7\tproxy\t",
    ),
    "read_response: by name, no body of gRPC": (
        r"heard grpc by-name 'HTTP/1.1 503 x\r\nx-envoy-upstream-service-time: 3\r\ngrpc-status: 14\r\n\r\nRBAC: access denied'",
        "503\tapplication\t",
    ),
    "is_of_proxy: Envoy's words": (
        "for words in 'RBAC: access denied' 'RBAC%3A access denied' 'Jwt is missing' 'Audiences in Jwt are not allowed' 'upstream connect error' "
        "'no healthy upstream' overloaded local_rate_limited 'fault filter abort' 'rate limited' 'request timeout'; do yes_or_no is_of_proxy \"$words\"; done | uniq",
        "yes",
    ),
    "is_of_proxy: others": ("for words in '' mine 'out of stock, RBAC: x'; do yes_or_no is_of_proxy \"$words\"; done | uniq", "no"),
    "is_proof: bytes": ("PROTOCOL=tcp; each_of is_proof open bytes closed 'no' 200", "open bytes"),
    "is_proof: statuses of HTTP": (
        "EXPECT=100-599; for by in application proxy caller; do for status in 099 99 100 200 299 300 404 503 599 600 2000 grpc; do "
        "is_proof $status $by 10.0.0.1:80 && printf '%s ' $status; done; echo; done",
        "100 200 299 300 404 503 599 \n100 200 299 \n",
    ),
    "is_proof: unexpected statuses": ("each_of is_proof 199 200 399 400 | sed 's/399 //'; is_proof 399 application x && echo 399", "200 \n399"),
    "is_proof: a response without gRPC": ("PROTOCOL=grpc; EXPECT=-; is_proof 200 application x || echo no", "no"),
    "is_proof: statuses of gRPC": (
        "PROTOCOL=grpc; for by in application proxy caller; do for status in 0 2 4 5 7 8 12 13 14 15 16 unknown; do "
        "is_proof \"grpc $status\" $by 10.0.0.1:80 && printf '%s ' $status; done; echo; done",
        "0 2 4 5 7 8 12 13 14 15 16 \n0 5 12 15 \n",
    ),
    "is_proof: by name, gRPC without trailers": ("PROTOCOL=grpc; for by in application proxy caller; do is_proof 'grpc unknown' $by name && echo $by; done", "application\nproxy"),
    "count: statuses, calls and answers": (
        "for each in '200|application|' '404|proxy|x' '200|application|' 'grpc 12|application|' '200|proxy|' '00|proxy|' 'grpc 12|proxy|y'; do "
        "IFS='|' read -r status by text <<<\"$each\"; count a \"$status\" $by \"$text\"; done; "
        "echo \"${statuses[a]}\" ${calls[a]} ${answers[a]} ${failed[a]} \"${failures[a]}\"; read -ra list <<<\"${statuses[a]}\"; members \"${list[@]}\"",
        '200=3 404=1 grpc-12=2 00=1  7 5 1 00\tproxy\t\n"200": 3, "404": 1, "grpc-12": 2, "00": 1',
    ),
    "count: what is no proof": ("count a 404 proxy words; echo \"${answers[a]:-none}\" ${failed[a]} \"${failures[a]}\"", "none 1 404\tproxy\twords"),
    "count: proof": ("count a 200 proxy ''; echo ${answers[a]} \"${failed[a]:-none}\" \"${failures[a]:-none}\"", "1 none none"),
    "given: counters of successes": (
        "host 80 '' 10.0.0.1:8080 rq_success=3 rq_total=5 cx_total=2; host 80 v1 10.0.0.1:8080 rq_success=1; host 81 '' 10.0.0.2:8080 rq_success=9; "
        "host 80 '' 10.0.0.3:8080 cx_active=7; clusters+=(xds-grpc::127.0.0.1:15012::rq_success::1); given | sort",
        "10.0.0.1:8080 4 7 1 given\n10.0.0.3:8080 0 0 1 given",
    ),
    "given: of other protocols and statuses, counters of all": (
        "host 80 '' 10.0.0.1:8080 rq_success=3 rq_total=5 cx_total=2; for PROTOCOL in http http2 grpc tcp; do given; done | cut -d ' ' -f 2,3; "
        "PROTOCOL=http; for EXPECT in 404 503 400-599 1-499; do given; done | cut -d ' ' -f 2,3",
        "3 7\n3 7\n5 7\n5 7\n3 7\n5 7\n5 7\n3 7",
    ),
    "given: those that are ejected, or that istiod calls unhealthy": (
        "for each in healthy /failed_outlier_check /failed_eds_health /failed_outlier_check/failed_eds_health/eds_status_draining /eds_status_draining; do "
        "clusters=(); host 80 '' 10.0.0.1:8080 rq_success=1 health_flags=$each rq_total=1; host 80 v1 10.0.0.1:8080 health_flags=healthy; echo \"=$(given)\"; done",
        "=10.0.0.1:8080 1 1 1 given\n=10.0.0.1:8080 1 1 1 ejected\n=10.0.0.1:8080 1 1 1 unhealthy\n=10.0.0.1:8080 1 1 1 unhealthy\n=10.0.0.1:8080 1 1 1 unhealthy",
    ),
    "given: requests may wait for a connection that was begun before": (
        "host 80 '' 10.0.0.1:8080 cx_total=1 cx_connect_fail=1 rq_total=0; given",
        "10.0.0.1:8080 0 2 1 given",
    ),
    "given: weights, of any subset": (
        "host 80 '' 10.0.0.1:8080 weight=1 rq_total=1; host 80 v1 10.0.0.1:8080 weight=50 rq_total=1; given",
        "10.0.0.1:8080 0 2 50 given",
    ),
    "given: counts beyond 31 bits": ("PROTOCOL=tcp; host 80 '' 10.0.0.1:8080 rq_total=3000000123 cx_total=1; given", "10.0.0.1:8080 3000000123 3000000124 1 given"),
    "given: nothing where the proxy does not answer": ("direct_curl() { echo 'outbound|80||product.shop.svc::10.0.0.1:8080::rq_total::1'; return 28; }; given; echo $?", "1"),
    "read_given: until the proxy answers": (
        "time_passes; host 80 '' 10.0.0.1:8080 rq_success=1; direct_curl() { [ $SECONDS -gt 2 ] && printf '%s\\n' \"${clusters[@]}\"; }; read_given; echo $SECONDS ${now[10.0.0.1:8080]}; "
        "direct_curl() { return 7; }; (read_given 2>&1)",
        "3 1\nmachine : Envoy's admin port did not list the endpoints of product.shop.svc",
    ),
    "read_given: a cluster that was replaced counts from zero": (
        "host 80 '' 10.0.0.1:8080 rq_success=100 rq_total=100; start_counting; clusters=(); host 80 '' 10.0.0.1:8080 rq_success=1 rq_total=2; read_given; "
        "echo ${now[10.0.0.1:8080]} ${tried[10.0.0.1:8080]}",
        "1 2",
    ),
    "read_given: an endpoint is led to once it is healthy, and counts from then": (
        "host 80 '' 10.0.0.1:8080 rq_success=7 rq_total=7 health_flags=/failed_eds_health; start_counting; echo ${#now[@]}; clusters=(); host 80 '' 10.0.0.1:8080 rq_success=8 rq_total=8; "
        "read_given; echo ${now[10.0.0.1:8080]} ${tried[10.0.0.1:8080]} ${weight[10.0.0.1:8080]} ${state[10.0.0.1:8080]}",
        "0\n1 1 1 given",
    ),
    "start_counting: what came before does not count": (
        "host 80 '' 10.0.0.1:8080 rq_success=3 cx_total=4; start_counting; clusters=(); host 80 '' 10.0.0.1:8080 rq_success=5 cx_total=7; "
        "host 80 '' 10.0.0.2:8080 rq_success=1; read_given; echo ${now[10.0.0.1:8080]} ${tried[10.0.0.1:8080]} ${now[10.0.0.2:8080]}",
        "2 3 1",
    ),
    "hidden_problem: a Service that the proxy does not know": (
        "show() { echo \"=$(hidden_problem)\" | cut -c -50; }; now=([10.0.0.1:80]=0); show; now=(); show; clusters=('outbound|81||product.shop.svc::added_via_api::true'); show; "
        "clusters+=('outbound|80|v1|product.shop.svc::added_via_api::true'); show",
        "=\n=the proxy does not know product.shop.svc port 80:\n=the proxy does not know product.shop.svc port 80:\n=",
    ),
    "has_any: one is enough": ("for each in '0 0' '0 2' '2 0' ''; do yes_or_no has_any $each; done", "no\nyes\nyes\nno"),
    "is_held: connections of which no endpoint has any, until each first byte was sent": (
        "show() { PROTOCOL=$1 tried=([a]=$2); yes_or_no is_held $3; }; FIRST_BYTES=(a b); show tcp 0 7; show tcp 0 8; show tcp 1 7; show http 0 7",
        "yes\nno\nno\nno",
    ),
    "is_given: also without an answer": (
        "now=([192.0.2.6:15443]=0); each_of is_given gateway.test:15443 192.0.2.6:15443 192.0.2.7:15443 nowhere.test:1; now=(); each_of is_given 192.0.2.6:15443",
        "gateway.test:15443 192.0.2.6:15443 \n",
    ),
    "was_met: only with an answer": (
        "now=([192.0.2.7:15443]=1 [10.0.0.1:1]=0); each_of was_met gateway.test:15443 192.0.2.7:15443 192.0.2.6:15443 10.0.0.1:1",
        "gateway.test:15443 192.0.2.7:15443",
    ),
    "is_identified: by this identity alone": (
        "for clusters in '\"spiffe://x\"' '\"spiffe://xy\"' nothing; do yes_or_no is_identified; echo \"${accepted:-}\"; done; "
        "clusters=('\"spiffe://a\"' '\"spiffe://x\"' '\"spiffe://z\"'); yes_or_no is_identified; echo \"$accepted\"",
        "yes\nspiffe://x\nno\nspiffe://xy\nno\n\nyes\nspiffe://a spiffe://x spiffe://z",
    ),
    "is_identified: a subset without the identity, where it is used": (
        "direct_curl() { case $* in */clusters*) printf 'outbound|80|%s|product.shop.svc::10.0.0.1:80::rq_total::%s\\n' '' 3 v1 \"$used\" v2 0 ;; *) echo \"$dump\" ;; esac; }; "
        "of() { echo \"  \\\"name\\\": \\\"outbound|80|$1|product.shop.svc\\\",\"; }; id='\"exact\": \"spiffe://x\"'; for used in 0 2; do for dump in "
        "\"$(of '')$id\" \"$(of '')$id\"$'\\n'\"$(of v1)$id\" \"$(of '')$id\"$'\\n'\"$(of v1)\" \"$(of v2)\"$'\\n'\"$(of '')$id\"; do yes_or_no is_identified; done; done | paste -sd ' '",
        "yes yes yes yes yes yes no yes",
    ),
    "is_identified: a subset without the identity, which was used before": (
        "direct_curl() { case $* in */clusters*) printf 'outbound|80|v1|product.shop.svc::%s::rq_total::%s\\n' 10.0.0.1:80 \"$used\" [fd00::1]:80 \"$others\" ;; *) echo \"$dump\" ;; esac; }; "
        "of() { echo \"  \\\"name\\\": \\\"outbound|80|$1|product.shop.svc\\\",\"; }; dump=\"$(of '')\"$'\\n\"exact\": \"spiffe://x\"\\n'\"$(of v1)\"; "
        "used=2 others=1; start_counting; yes_or_no is_identified; used=3; yes_or_no is_identified; start_counting; yes_or_no is_identified; others=2; yes_or_no is_identified",
        "yes\nno\nyes\nno",
    ),
    "is_identified: without room for files": (
        "TMPDIR=/nowhere clusters=('\"spiffe://x\"' \"$(printf %70000s '')\"); mktemp() { return 1; }; ulimit -f 0; yes_or_no is_identified",
        "yes",
    ),
    "takes_connections: tried by itself": (
        "as_proxy() { return 0; }; can_connect() { echo $1 $2; return $tries; }; for tries in 0 1; do yes_or_no takes_connections 10.0.0.1:8080 503 refused; done",
        "10.0.0.1 8080\nyes\n10.0.0.1 8080\nno",
    ),
    "takes_connections: by Envoy's words": (
        "for text in 'Connection refused' 'Connection timeout' Timeout 'network unreachable' Unreachable 'x connection_failure' 'protocol error'; do "
        "yes_or_no takes_connections 10.0.0.1:8080 503 \"$text\"; done | paste -sd ' '",
        "no no no no no no yes",
    ),
    "explain: what there is to see": (
        "machine_of[10.0.0.1:8080]=m-1; while IFS= read -r line; do failures[10.0.0.1:8080]=${line//!/$'\\t'}; "
        "explain 10.0.0.1:8080 | sed -E 's/^(.{32})[^\\t]*/\\1/'; done <<'END'\n"
        "503!caller!TLS: CERTIFICATE_VERIFY_FAILED\n503!caller!TLS_error ALERT_UNKNOWN\n503!caller!TLS_error WRONG_VERSION_NUMBER:x\n503!caller!TLS_error\n403!proxy!x\n403!application!x\n404!proxy!x\n"
        "500!proxy!x\n302!proxy!x\n503!application!x\nno grpc!application!x\ngrpc 7!proxy!x\ngrpc 7!application!x\ngrpc 2!proxy!x\nclosed!peer!it closed\n503!caller!refused\n503!caller!odd\nEND",
        "its certificate is not one of sp\tmachine m-1\nit refuses the caller's certific\tmachine m-1\n"
        "it answers in plaintext: does a \tPeerAuthentication of spiffe://x\nit takes connections: does the a\tmachine m-1\n"
        "its proxy forbids the call: an A\tAuthorizationPolicy of spiffe://x\n/health returns 403: set verify.\tmachine m-1\n/health returns 404: set verify.\tmachine m-1\n"
        "its proxy answers in the applica\tmachine m-1\nits proxy answers in the applica\tmachine m-1\n/health returns 503: set verify.\tmachine m-1\n"
        "it answers, but not by gRPC: doe\tmachine m-1\n"
        "its proxy forbids the call: an A\tAuthorizationPolicy of spiffe://x\nit takes connections: does the a\tmachine m-1\nits proxy answers in the applica\tmachine m-1\nit closed: does the application \tmachine m-1\n"
        "it takes no connection (refused;\tmachine m-1\nit takes connections: does the a\tmachine m-1",
    ),
    "explain: a gateway that takes no connection": (
        "failures[10.0.0.1:15443]=$'503\\tcaller\\ttimeout'; explain 10.0.0.1:15443 | cut -c -71; explain 10.0.0.2:15443 | cut -c -49",
        "the gateway at 10.0.0.1 takes no connection on port 15443 (timeout): is\nit takes connections: does the application answer",
    ),
    "explain: the error of a connection of its own": (
        "as_proxy() { return 0; }; can_connect() { echo 'connect: No route to host' >&2; return 1; }; ip() { return 2; }; "
        "explain 10.0.0.1:80 | cut -c -60; can_connect() { return 1; }; explain 10.0.0.1:80 | cut -c -60",
        "it takes no connection (No route; packets leave nowhere): is\nit takes no connection (no answer; packets leave nowhere): i",
    ),
    "explain: by name, an endpoint that takes no connection is told apart from one whose proxy answers": (
        "as_proxy() { return 0; }; can_connect() { [ $1 = 10.0.0.1 ]; }; for LISTENER in '' 15088; do for each in proxy peer application; do "
        "for there in 10.0.0.1:80 10.0.0.2:80; do failures[$there]=\"503\"$'\\t'\"$each\"$'\\t'; explain $there | cut -c -23; done; done; done",
        "its proxy answers in th\nit takes no connection \nit takes connections: d\nit takes no connection \n/health returns 503: se\n/health returns 503: se\n"
        "its proxy answers in th\nits proxy answers in th\nit takes connections: d\nit takes no connection \n/health returns 503: se\n/health returns 503: se",
    ),
    "explain: a Service without an endpoint to blame": (
        "as_proxy() { return 0; }; can_connect() { return 1; }; failures[product.shop.svc]=$'503\\tproxy\\t'; explain product.shop.svc | cut -c -23",
        "its proxy answers in th",
    ),
    "object_of: what an endpoint is": (
        "machine_of[10.0.0.1:8080]=m-1; for each in 10.0.0.1:8080 10.0.0.2:15443 10.0.0.3:80; do object_of $each; done",
        "machine m-1\ngateway 10.0.0.2\nendpoint 10.0.0.3:80",
    ),
    "note: the first failure, and each warning": ("note ''; note a; note b; MODE=warn; note c; note ''; echo \"$failure\"", "me: c\na"),
    "print_result: identities": (
        "accepted='spiffe://a spiffe://x'; show() { print_result \"$1\" how '' '' | grep -o 'peer.: [^,]*'; }; show 10.0.0.1:80; show name; LISTENER=1; show 10.0.0.1:80; show name",
        'peer": "spiffe://a spiffe://x"\npeer": ""\npeer": "spiffe://x spiffe://y"\npeer": ""',
    ),
    "print_result: kinds": (
        "print_row() { while [ $# -gt 0 ]; do case $1 in kind | endpoint | verdict | status) printf '%s ' \"$2\" ;; esac; shift 2; done; echo; }; "
        "statuses[a]='200=1 '; statuses[b]='bytes=2 closed=1 '; statuses[name]='open=1 '; print_result a addressed '' ''; PROTOCOL=tcp; "
        "print_result b addressed cause x; print_result name by-chance '' ''",
        'a "200": 1 response proved \nb "bytes": 2, "closed": 1 bytes failed \n "open": 1 open proved',
    ),
    "print_row: numbers, statuses and texts": (
        "print_row calls 3 answers 2 status '\"200\": 2' endpoint 'a \"b\"' | grep -o '\"calls\": 3.*'",
        '"calls": 3, "answers": 2, "status": {"200": 2}, "endpoint": "a \\"b\\""}}',
    ),
    "name_problem: no name, no endpoint": (
        "now=(); yes_or_no name_problem | cut -c -30; has_cluster; yes_or_no name_problem | cut -c -40; now=([a]=0); yes_or_no name_problem; SERVICE=nowhere; yes_or_no name_problem | cut -c -24",
        "the proxy does not know produc\nyes\nthe proxy has no endpoint for product.sh\nyes\nno\nnowhere does not resolve\nyes",
    ),
    "gift_problem: no name, not given": (
        "now=([192.0.2.6:15443]=0 [10.0.0.1:80]=0); for each in nowhere.test:15443 10.0.0.2:80 10.0.0.1:80 gateway.test:15443; do gift_problem $each | cut -c -50; done",
        "the gateway's name nowhere.test does not resolve h\nthe proxy was not given the endpoint 10.0.0.2:80 f",
    ),
    "call_until_answered: those that failed again": (
        "time_passes; answer_of() { if [ $1 = b ] && ((attempt < 3)); then echo 'closed|peer|x'; else echo '200|application|'; fi; }; "
        "call_until_answered a b c; echo \"$asked ${!failed[*]}\"; asked=; call_until_answered; echo \"$asked\"",
        "[a b c][b][b] \n[]",
    ),
    "call_until_answered: until the time is over": (
        "time_passes; answer_of() { echo 'closed|peer|x'; }; call_until_answered a; echo \"$asked ${!failed[*]}\"; asked=; call_until_answered a; echo \"$asked\"",
        "[a][a][a][a][a] a\n[a]",
    ),
    "wait_until_given: until all are, or a time": (
        "time_passes; read_given() { now=([10.0.0.1:1]=0); if ((++reads > 2)); then now[10.0.0.2:1]=0; fi; }; wait_until_given 9 10.0.0.1:1 10.0.0.2:1; echo $reads; "
        "wait_until_given 9 10.0.0.1:1; echo $reads; wait_until_given 5 10.0.0.3:1; echo $reads $SECONDS",
        "3\n4\n8 5",
    ),
    "are_given: all": ("now=([10.0.0.1:1]=0 [10.0.0.2:1]=0); for each in 1 2 3; do yes_or_no are_given 10.0.0.1:1 10.0.0.$each:1; done", "yes\nyes\nno"),
    "call_endpoints: a row each": (
        "in_short; given_are 10.0.0.1:80=0 10.0.0.2:80=0; answer_of() { case $1 in *2:80) echo 'closed|peer|it closed' ;; *) echo '200|application|' ;; esac; }; "
        "call_endpoints 10.0.0.1:80 10.0.0.2:80 10.0.0.3:80 10.0.0.42:80; echo \"${failure:0:30}\"",
        "10.0.0.1:80|addressed|proved||\n10.0.0.2:80|addressed|failed|endpoint 10.0.0.2:80|no answer from 10.0.0.2:80 for product.s\n"
        "10.0.0.3:80|addressed|failed|WorkloadEntry of endpoint 10.0.0.3:80|the proxy was not given the endpoint 10.\n"
        "10.0.0.42:80|addressed|failed|WorkloadEntry of endpoint 10.0.0.42:80|the proxy was not given the endpoint 10.\nno answer from 10.0.0.2:80 for",
    ),
    "call_endpoints: a Service that the proxy does not know": (
        "in_short; given_are; call_endpoints 10.0.0.1:80; echo \"${failure:0:30}\"",
        "10.0.0.1:80|addressed|failed|Service product.shop.svc|the proxy does not know product.shop.svc\nthe proxy does not know produc",
    ),
    "call_gateways: as many calls as endpoints need": (
        "in_short; given_are 192.0.2.6:15443=0 10.0.0.9:15443=0; CALLS=4,29; call_gateways gateway.test:15443 10.0.0.9:15443; tr ' ' '\n' <<<\"${asked#*]}\" | tr -d '[]' | sort | uniq -c",
        "192.0.2.6:15443|by-chance|proved||\n10.0.0.9:15443|by-chance|proved||\n     29 10.0.0.9:15443\n      4 192.0.2.6:15443",
    ),
    "call_all: a call without a result has failed": (
        "eval \"$(declare -f real_call_all | sed 's/^real_//')\"; start_calls() { printf '%s\\t200\\tapplication\\t\\n' \"${@:1:1}\"; }; call_all a b; echo ${!failed[*]} ${failures[b]}; call_all a; echo ${!failed[*]}",
        "b a no answer caller a call ended without a result",
    ),
    "call_gateways: one that does not answer is called no more": (
        "in_short; given_are 192.0.2.6:15443=0 10.0.0.9:15443=0; CALLS=4,29,7; answer_of() { case $1 in 10*) echo 'closed|peer|it closed' ;; *) echo '200|application|' ;; esac; }; "
        "call_gateways gateway.test:15443 10.0.0.9:15443 nowhere.test:15443; echo \"$asked ${failure:0:30}\"",
        "192.0.2.6:15443|by-chance|proved||\n10.0.0.9:15443|by-chance|failed|gateway 10.0.0.9|no answer from 10.0.0.9:15443 for produc\n"
        "nowhere.test:15443|by-chance|failed|gateway nowhere.test|the gateway's name nowhere.test does not\n[192.0.2.6:15443 10.0.0.9:15443][192.0.2.6:15443 192.0.2.6:15443 192.0.2.6:15443 192.0.2.6:15443] no answer from 10.0.0.9:15443",
    ),
    "call_gateways: all of the calls are answered at last": (
        "in_short; time_passes; given_are 10.0.0.9:15443=0; CALLS=4; answer_of() { if ((attempt == 2)); then echo 'closed|peer|x'; else echo '200|application|'; fi; }; "
        "call_gateways 10.0.0.9:15443; sed 's/\\]\\[/\\n/g' <<<\"$asked\" | awk '{ print NF }' | paste -sd ' '; attempt=0 deadline=0; call_gateways 10.0.0.9:15443",
        "10.0.0.9:15443|by-chance|proved||\n1 4 8\n10.0.0.9:15443|by-chance|failed|gateway 10.0.0.9|no answer from 10.0.0.9:15443 for produc",
    ),
    "call_gateways: one that is not given, and none that resolves": (
        "in_short; given_are; has_cluster; CALLS=4; answer_of() { echo 'closed|peer|x'; }; call_gateways 10.0.0.9:15443 | tail -n 1; asked=; call_gateways nowhere.test:15443; echo \"$asked\"; "
        ": >$HOME/turns; resolve() { echo >>$HOME/turns; if [ \"$(wc -l <$HOME/turns)\" -gt 1 ]; then echo 10.0.0.8:15443; fi; }; given_are 10.0.0.8:15443=0; call_gateways gateway.test:15443",
        "10.0.0.9:15443|by-chance|failed|gateway 10.0.0.9|the proxy was not given the endpoint 10.\n"
        "nowhere.test:15443|by-chance|failed|gateway nowhere.test|the gateway's name nowhere.test does not\n[]\n"
        "gateway.test:15443|by-chance|failed|gateway gateway.test|the gateway's name gateway.test did not ",
    ),
    "call_by_name: what its routes prevent is a warning": (
        "in_short; time_passes; given_are 10.0.0.1:80=1; answer_of() { echo '503|proxy|x'; }; call_by_name 2>&1; echo \"$asked $failure\"",
        "me: calls by the name product.shop.svc port 80 are not answered as those of its endpoints are (last: 503): what do its routes do with them?\n"
        "|by-chance|failed|VirtualService or DestinationRule of product.shop.svc|calls by the name product.shop.svc port \n[name][name][name][name][name]",
    ),
    "call_by_name: an answer of an endpoint": (
        "in_short; time_passes; given_are 10.0.0.1:80=1; call_by_name; echo \"$asked $failure\"; asked=; there=(10.0.0.1:80=0); call_by_name 2>&1 | tail -n 1 | cut -c -24; "
        "there=(); has_cluster; SECONDS=9; call_by_name; echo \"${failure:0:29}\"",
        "|by-chance|proved||\n[name] \n|by-chance|failed|Virtua\n|by-chance|failed|Service product.shop.svc|the proxy has no endpoint for product.sh\nthe proxy has no endpoint for",
    ),
    "call_by_name: an answer that the proxy counts late": (
        "in_short; time_passes; read_given() { now=([10.0.0.1:80]=$((++reads > 3))); }; call_by_name; echo \"$asked\"",
        "|by-chance|proved||\n[name][name][name]",
    ),
    "missing_here: gateways first": (
        "now=([10.1.0.1:80]=1 [10.2.0.1:80]=0 [192.0.2.6:15443]=1); show() { GATEWAYS=$1 RANGES=$2; echo \"=$(missing_here)\"; }; "
        "show '' ''; show 10.0.0.9:15443 ''; show gateway.test:15443 ''; show '' 10.1.0.0/16; show '' 10.2.0.0/16; show 192.0.2.6:15443,10.0.0.9:15443 10.2.0.0/16",
        "=\n=10.0.0.9:15443\n=\n=\n=ranges\n=10.0.0.9:15443",
    ),
    "missing_ones: those that were given": (
        "now=([10.1.0.1:80]=1 [10.2.0.1:80]=0 [192.0.2.6:15443]=1); RANGES=10.2.0.0/16; for missing in ranges gateway.test:15443 10.0.0.9:15443; do echo \"=$(missing_ones)\"; done",
        "=10.2.0.1:80\n=192.0.2.6:15443\n=",
    ),
    "is_never_chosen: not even tried, though it could be": (
        "now=([10.2.0.1:80]=0 [10.2.0.2:80]=0); RANGES=10.2.0.0/16; show() { missing=$1; tried=([10.2.0.1:80]=$2 [10.2.0.2:80]=$3); chosen=(); note_chosen; yes_or_no is_never_chosen; }; "
        "show ranges 0 0; show ranges 0 1; show ranges 1 0; show '' 0 0; show 10.0.0.9:15443 0 0; tried=(); chosen=([10.2.0.1:80]=1); missing=ranges; yes_or_no is_never_chosen; "
        "chosen=(); state=([10.2.0.1:80]=given [10.2.0.2:80]=ejected); yes_or_no is_never_chosen",
        "yes\nno\nno\nno\nno\nno\nno",
    ),
    "shares: by the smallest weight of what is missing": (
        "now=([10.2.0.1:80]=0 [10.2.0.2:80]=0 [10.0.0.9:15443]=3) weight=([10.2.0.1:80]=2 [10.2.0.2:80]=5 [10.0.0.9:15443]=50); RANGES=10.2.0.0/16; "
        "for missing in ranges '' 10.0.0.9:15443; do shares; done; weight=(); shares; now=(); shares",
        "29\n29\n2\n3\n0",
    ),
    "shares: the smallest weight, wherever it stands": (
        "now=([10.2.0.1:80]=0 [10.2.0.2:80]=0 [10.2.0.3:80]=0); for each in '1 2 3' '2 3 1' '3 1 2'; do read -r weight[10.2.0.1:80] weight[10.2.0.2:80] weight[10.2.0.3:80] <<<\"$each\"; shares; done",
        "6\n6\n6",
    ),
    "are_enough: none that the proxy holds back, and after a failure as many as meet each endpoint": (
        "PROTOCOL=tcp missing=; now=([a]=4); show() { tried=([a]=$1) has_failed=$2; yes_or_no are_enough $3; }; show 8 '' 1; show 0 '' 1; show 8 1 4; show 8 1 3",
        "yes\nno\nyes\nno",
    ),
    "keeps_hanging: longer than another's handshake": (
        "PROTOCOL=tcp now=([a]=1); sleep() { :; }; read_given() { tried=([a]=$((++reads < until ? 3 : 2))); }; show() { reads=0 until=$1; read_given; yes_or_no keeps_hanging; echo $reads; }; show 0; show 2; show 5; show 99",
        "no\n1\nno\n2\nno\n5\nyes\n5",
    ),
    "reason_to_pass_over: localities": (
        "now=([10.2.0.1:80]=0); missing=ranges RANGES=10.2.0.0/16; for each in '10.2.0.1:80 1' '10.2.0.1:80 0' '10.9.0.1:80 1'; do clusters=(); host 80 '' ${each% *} priority=${each#* }; "
        "reason_to_pass_over | cut -c -24; done",
        "others come first, becau\nthe routes for it choose\nthe routes for it choose",
    ),
    "is_answered_by_routes: by the caller's proxy, of healthy endpoints": (
        "show() { failed=(); [ -z \"$1\" ] || failed[name]=1; failures[name]=${2//!/$'\\t'}; chosen=(); [ -z \"$3\" ] || chosen[a]=1; state=([a]=${5:-given}); clusters=(); host 80 '' 10.0.0.1:80 health_flags=$4; yes_or_no is_answered_by_routes; }; "
        "show x '503!proxy!x' '' healthy; show '' '503!proxy!x' '' healthy; show x '503!application!x' '' healthy; show x 'closed!proxy!' '' healthy; show x '503!proxy!x' 1 healthy; "
        "show x '503!proxy!x' '' /failed_active_hc; show x '503!proxy!x' '' healthy ejected; unset 'failures[name]'; failed=([a]=1); yes_or_no is_answered_by_routes",
        "yes\nno\nno\nno\nno\nno\nno\nno",
    ),
    "chance_problem: the first of all": (
        "now=([10.1.0.1:80]=0); show() { note_chosen; echo \"=$(chance_problem)\" | cut -c -48; }; failures[name]=$'closed\\tpeer\\tit closed'; "
        "GATEWAYS=10.1.0.1:80,10.0.0.9:15443; missing=; show; GATEWAYS= RANGES=10.2.0.0/16; missing=ranges; show; tried=([10.1.0.1:80]=1); RANGES=10.1.0.0/16; show; missing=10.1.0.1:80; show; "
        "is_enough=1 missing=; show; is_enough=; failed=([name]=1); show; failed=(); is_plain=1; show",
        "=the proxy was not given the endpoint 10.0.0.9:1\n=the proxy was given no endpoint in 10.2.0.0/16 \n=no answer from 10.1.0.1:80 for product.shop.svc\n"
        "=no answer from 10.1.0.1:80 for product.shop.svc\n=\n=no answer from product.shop.svc for product.sho\n=product.shop.svc is called without mutual TLS f",
    ),
    "chance_problem: an endpoint that was not tried is not to blame": (
        "now=([10.1.0.1:80]=0 [10.1.0.2:80]=0 [192.0.2.6:15443]=0) tried=([10.1.0.1:80]=0 [10.1.0.2:80]=2 [192.0.2.6:15443]=0); failed=([name]=1) RANGES=10.1.0.0/16; "
        "failures[name]=$'503\tproxy\tx'; show() { chance_problem | cut -c -40; }; for missing in ranges gateway.test:15443; do show; done; tried=([192.0.2.6:15443]=1); show; missing=ranges; show",
        "no answer from 10.1.0.2:80 for product.s\nno answer from product.shop.svc for prod\nno answer from gateway.test:15443 for pr\nno answer from product.shop.svc for prod",
    ),
    "call_by_chance: until the wanted ones are met": (
        "in_short; time_passes; is_identified() { echo read >>\"$HOME/configuration\"; }; RANGES=10.1.0.0/16; start_counting() { ((++starts)); }; "
        "read_given() { now=([10.1.0.1:80]=0 [10.2.0.1:80]=4) tried=([10.1.0.1:80]=1 [10.2.0.1:80]=4); "
        "if ((++reads > 3)); then now[10.1.0.1:80]=2; fi; }; call_by_chance | sort; echo \"$failure\"; cat \"$HOME/configuration\"",
        "10.1.0.1:80|by-chance|proved||\n10.2.0.1:80|by-chance|proved||\n|by-chance|proved||\n\nread",
    ),
    "call_by_chance: until its proxy has identities": (
        "in_short; time_passes; PROTOCOL=tcp; given_are 10.1.0.1:80=1; RANGES=10.1.0.0/16; is_identified() { ((++looks > 2)); }; answer_of() { echo 'open|application|'; }; call_by_chance; echo \"$attempt bytes\"",
        "10.1.0.1:80|by-chance|proved||\n|by-chance|proved||\n3 bytes",
    ),
    "call_by_chance: calls after the last that failed": (
        "in_short; time_passes; is_identified() { :; }; given_are 10.1.0.1:80=1; start_counting() { echo start; }; RANGES=10.1.0.0/16; "
        "answer_of() { if ((attempt == 1)); then echo '503|proxy|x'; else echo '200|application|'; fi; }; call_by_chance; echo \"$asked\"",
        "start\nstart\n10.1.0.1:80|by-chance|proved||\n|by-chance|proved||\n[name name name name][name name name name]",
    ),
    "call_by_chance: its own proxy answers for an endpoint that it has tried for earlier calls": (
        "in_short; time_passes; deadline=2; is_identified() { :; }; RANGES=10.1.0.0/16; start_counting() { :; }; host 80 '' 10.1.0.1:80 health_flags=healthy; answer_of() { echo '504|proxy|x'; }; "
        "read_given() { now=([10.1.0.1:80]=0) tried=([10.1.0.1:80]=$((reads++ == once))); }; once=0; call_by_chance; echo \"${failure:0:30}\"; SECONDS=0 once=99 chosen=(); call_by_chance 2>&1 | cut -c -60",
        "|by-chance|failed|Service product.shop.svc|no answer from product.shop.svc for prod\nno answer from product.shop.sv\n"
        "me: the caller's own proxy answers calls by the name product\n|by-chance|failed|VirtualService or DestinationRule of produ",
    ),
    "call_by_chance: connections that its own proxy holds back are no answers": (
        "in_short; time_passes; deadline=2; is_identified() { :; }; PROTOCOL=tcp RANGES=10.1.0.0/16 TIMEOUT_S=2; given_are 10.1.0.1:80=0; answer_of() { echo 'open|application|'; }; "
        "call_by_chance; echo $attempt; RANGES=''; SECONDS=0; call_by_chance; there=(10.1.0.1:80=1); attempt=0; call_by_chance; echo $attempt",
        "|by-chance|failed|Service product.shop.svc|no answer from product.shop.svc for prod\n5\n|by-chance|failed|Service product.shop.svc|no answer from product.shop.svc for prod\n"
        "10.1.0.1:80|by-chance|proved||\n|by-chance|proved||\n1",
    ),
    "call_by_chance: connections that are open on the caller's side alone": (
        "in_short; time_passes; deadline=1; is_identified() { :; }; PROTOCOL=tcp TIMEOUT_S=1; start_counting() { :; }; answer_of() { echo 'open|application|'; }; "
        "read_given() { now=([10.1.0.1:80]=0 [10.1.0.2:80]=$one) tried=([10.1.0.1:80]=$hung [10.1.0.2:80]=$((one * 2))); }; hung=4 one=0; call_by_chance; SECONDS=0 one=1; call_by_chance; "
        "SECONDS=0 hung=0; call_by_chance; SECONDS=0 hung=4 PROTOCOL=http; call_by_chance",
        "|by-chance|failed|Service product.shop.svc|no answer from 10.1.0.1:80 for product.s\n|by-chance|failed|Service product.shop.svc|no answer from 10.1.0.1:80 for product.s\n"
        "10.1.0.2:80|by-chance|proved||\n|by-chance|proved||\n10.1.0.2:80|by-chance|proved||\n|by-chance|proved||",
    ),
    "call_by_chance: after a failure, so many that an endpoint that always fails is met again": (
        "in_short; time_passes; deadline=9; is_identified() { :; }; given_are 10.1.0.1:80=1 10.1.0.2:80=1; RANGES=10.1.0.0/16; start_counting() { :; }; "
        "answer_of() { if ((attempt == 2)); then echo '503|proxy|x'; else echo '200|application|'; fi; }; show() { asked= attempt=$1 SECONDS=0; call_by_chance | wc -l; call_by_chance >/dev/null; tr ']' '\\n' <<<\"$asked\" | awk '{ printf \"%s\", NF ? \" \" NF : \"\" }'; echo; }; "
        "show 2; show 1; weight=([10.1.0.1:80]=90 [10.1.0.2:80]=1) deadline=20; show 1; weight=(); answer_of() { if ((attempt == 2 || attempt == 4)); then echo '503|proxy|x'; else echo '200|application|'; fi; }; show 1",
        "3\n 4\n3\n 4 4 8\n3\n 4 4 8 16 16 16\n3\n 4 4 8 4 4 4",
    ),
    "call_by_chance: a connection that hangs is a failure": (
        "in_short; time_passes; deadline=9; is_identified() { :; }; PROTOCOL=tcp RANGES=10.1.0.0/16; start_counting() { echo start; }; answer_of() { echo 'open|application|'; }; "
        "read_given() { now=([10.1.0.1:80]=4 [10.2.0.1:80]=4) tried=([10.1.0.1:80]=$((reads++ < 5 ? 9 : 8)) [10.2.0.1:80]=8); }; call_by_chance | sort; reads=0 asked= attempt=0 SECONDS=0; call_by_chance >/dev/null; tr ']' '\\n' <<<\"$asked\" | awk '{ printf \"%s\", NF ? \" \" NF : \"\" }'",
        "10.1.0.1:80|by-chance|proved||\n10.2.0.1:80|by-chance|proved||\nstart\nstart\n|by-chance|proved||\n 4 4 8",
    ),
    "call_by_chance: no more calls at once until its proxy has identities": (
        "in_short; time_passes; given_are 10.1.0.1:80=1; RANGES=10.1.0.0/16; is_identified() { ((++looks > 3)); }; call_by_chance >/dev/null; tr ']' '\\n' <<<\"$asked\" | awk '{ printf \"%s\", NF ? \" \" NF : \"\" }'",
        " 4 4 4 4",
    ),
    "call_by_chance: after a failure, too few until the time is over": (
        "in_short; time_passes; deadline=1; is_identified() { :; }; given_are 10.1.0.1:80=1 10.1.0.2:80=1; RANGES=10.1.0.0/16; start_counting() { :; }; "
        "answer_of() { if ((attempt == 1)); then echo '503|proxy|x'; else echo '200|application|'; fi; }; call_by_chance | sort; attempt=0 SECONDS=0; call_by_chance >/dev/null; echo \"$failure\"",
        "10.1.0.1:80|by-chance|proved||\n10.1.0.2:80|by-chance|proved||\n|by-chance|failed|Service product.shop.svc|a part of the calls by the name product.\n"
        "a part of the calls by the name product.shop.svc port 80 failed (last: 503): 4 after these were answered, which are too few in 0 s",
    ),
    "call_by_chance: weights that leave it no call are a warning": (
        "in_short; time_passes; deadline=1; is_identified() { :; }; given_are 10.1.0.1:80=0 10.2.0.1:80=3; weight=([10.2.0.1:80]=50); RANGES=10.1.0.0/16; call_by_chance 2>&1; echo \"$failure\"",
        "10.2.0.1:80|by-chance|proved||\n"
        "me: 12 calls by the name product.shop.svc port 80 were answered, but none by an endpoint in 10.1.0.0/16: the routes for it choose other endpoints, or their weights leave it one call in 51\n"
        "|by-chance|failed|VirtualService or DestinationRule of product.shop.svc|12 calls by the name product.shop.svc po",
    ),
    "call_by_chance: an endpoint that is ejected is waited for": (
        "in_short; time_passes; deadline=9; is_identified() { :; }; RANGES=10.1.0.0/16; start_counting() { :; }; "
        "read_given() { now=([10.1.0.1:80]=$((SECONDS > 3)) [10.2.0.1:80]=4) tried=([10.1.0.1:80]=$((SECONDS > 3)) [10.2.0.1:80]=4) state=([10.1.0.1:80]=ejected); }; call_by_chance; echo $SECONDS; "
        "SECONDS=0 deadline=3; call_by_chance; echo \"${failure:0:30}\"",
        "10.1.0.1:80|by-chance|proved||\n10.2.0.1:80|by-chance|proved||\n|by-chance|proved||\n4\n10.2.0.1:80|by-chance|proved||\n|by-chance|failed|Service product.shop.svc|no answer from 10.1.0.1:80 for product.s\n"
        "no answer from 10.1.0.1:80 for",
    ),
    "call_by_chance: connections that routes lead elsewhere, whatever the first byte is": (
        "in_short; time_passes; is_identified() { :; }; PROTOCOL=tcp RANGES=10.1.0.0/16 FIRST_BYTES=(a b); given_are 10.1.0.1:80=0; answer_of() { echo 'open|application|'; }; call_by_chance 2>/dev/null; echo $SECONDS",
        "|by-chance|failed|VirtualService or DestinationRule of product.shop.svc|8 calls by the name product.shop.svc por\n1",
    ),
    "call_by_chance: several at once through a gateway": (
        "in_short; is_identified() { :; }; given_are 10.0.0.9:15443=1; GATEWAYS=10.0.0.9:15443; call_by_chance >/dev/null; wc -w <<<\"$asked\"",
        "12",
    ),
    "call_by_chance: failed calls prove nothing": (
        "in_short; is_identified() { :; }; given_are 10.1.0.1:80=1; RANGES=10.1.0.0/16; answer_of() { echo '503|application|x'; }; call_by_chance; echo \"${failure:0:30}\"; "
        "answer_of() { echo '200|application|'; }; is_identified() { return 1; }; failure=; call_by_chance; echo \"${failure:0:50}\"; MODE=warn; call_by_chance 2>&1 >/dev/null | cut -c -40",
        "|by-chance|failed|Service product.shop.svc|no answer from product.shop.svc for prod\nno answer from product.shop.sv\n"
        "|by-chance|failed|Service product.shop.svc|product.shop.svc is called without mutua\nproduct.shop.svc is called without mutual TLS for \n"
        "me: product.shop.svc is called without m",
    ),
    "call_by_chance: routes that never choose it": (
        "in_short; time_passes; deadline=9; is_identified() { :; }; given_are 10.1.0.1:80=0 10.2.0.1:80=3; RANGES=10.1.0.0/16; call_by_chance 2>&1 | cut -c -90; echo \"$failure\"; "
        "SECONDS=0; call_by_chance >/dev/null 2>&1; echo $SECONDS; RANGES=10.2.0.0/16; there=(10.2.0.1:80=3); SECONDS=0; call_by_chance; echo $SECONDS",
        "10.2.0.1:80|by-chance|proved||\nme: 12 calls by the name product.shop.svc port 80 were answered, but none by an endpoint i\n"
        "|by-chance|failed|VirtualService or DestinationRule of product.shop.svc|12 calls by the na\n\n1\n10.2.0.1:80|by-chance|proved||\n|by-chance|proved||\n0",
    ),
    "call_by_chance: routes that never choose it, in plaintext": (
        "in_short; time_passes; deadline=9; is_identified() { return 1; }; given_are 10.1.0.1:80=0 10.2.0.1:80=3; RANGES=10.1.0.0/16; call_by_chance; echo \"${failure:0:47}\"",
        "|by-chance|failed|Service product.shop.svc|product.shop.svc is called without mutua\nproduct.shop.svc is called without mutual TLS f",
    ),
    "call_by_chance: its own proxy answers": (
        "in_short; is_identified() { [ -z \"$plain\" ]; }; is_answered_by_routes() { :; }; given_are 10.1.0.1:80=0; RANGES=10.1.0.0/16; answer_of() { echo '302|proxy|x'; }; call_by_chance 2>&1 | cut -c -60; "
        "plain=1; call_by_chance; echo \"${failure:0:30}\"; there=(); plain=; has_cluster; call_by_chance | cut -c -90; echo \"${failure:0:30}\"",
        "me: the caller's own proxy answers calls by the name product\n|by-chance|failed|VirtualService or DestinationRule of produ\n"
        "|by-chance|failed|Service product.shop.svc|product.shop.svc is called without mutua\nproduct.shop.svc is called wit\n|by-chance|failed|Service product.shop.svc|the proxy has no endpoint for product.sh\nproduct.shop.svc is called wit",
    ),
    "verify_target: by a listener, or by name": (
        "call_endpoints() { echo \"endpoints $*\"; }; call_gateways() { echo \"gateways $*\"; }; call_by_name() { echo name; }; call_by_chance() { echo \"chance ${machine_of[10.0.0.1:80]}\"; }; "
        "ENDPOINTS=10.0.0.1:80,10.0.0.2:80 MACHINES=m-1=10.0.0.1:80; verify_target; LISTENER=1; verify_target; GATEWAYS=a:1,b:1; verify_target",
        "chance m-1\nendpoints 10.0.0.1:80 10.0.0.2:80\nname\nendpoints 10.0.0.1:80 10.0.0.2:80\ngateways a:1 b:1\nname",
    ),
    "check_inbound: until the proxy answers": (
        "in_short; time_passes; direct_curl() { [ $SECONDS -gt 2 ] && echo 'inbound|80||::10.0.0.2:80::rq_total::1'; }; check_inbound 80; echo $SECONDS; direct_curl() { return 28; }; (check_inbound 80 2>&1); SECONDS=0; (check_inbound 80 2>&1)",
        "|by-chance|proved||\n3\nmachine : Envoy's admin port did not list what has called port 80\nmachine : Envoy's admin port did not list what has called port 80",
    ),
    "check_inbound: one call is enough": (
        "in_short; uptime() { echo 37s; }; show() { clusters=(\"inbound|80||::10.0.0.2:80::rq_total::$1\"); failure= is_uncalled=; check_inbound 80; echo \"${failure:0:74}|$is_uncalled\"; }; "
        "show 1; show 0; MODE=warn; show 0 2>&1 | cut -c -39",
        "|by-chance|proved||\n|\n|by-chance|failed|me|no call from a pod has reached port 80 i\n"
        "no call from a pod has reached port 80 in the 37s since the proxy started:|1\n"
        "me: no call from a pod has reached port\n|by-chance|failed|me|no call from a pod\n|1",
    ),
    "check_inbound: the number, and whose it is": (
        "CALLER='machine m-1'; for each in 3 0; do inbound_calls() { echo $each; }; check_inbound 80 | grep -oE '(answers|verdict|kind|machine|object).: [^,}]*' | tr -d '\" ' | tr '\\n' ' '; done",
        "answers:3 kind:counter machine:m-1 verdict:proved object: answers:0 kind:counter machine:m-1 verdict:failed object:machinem-1",
    ),
    "uptime: of the proxy, not of those before it": (
        "clusters=(' \"state\": \"LIVE\",' ' \"uptime_current_epoch\": \"37s\",' ' \"uptime_all_epochs\": \"99s\"'); uptime", "37s",
    ),
    "leave_out_target: a row, and no failure": (
        "in_short; leave_out_target; echo \"=$failure\"", "|by-chance|failed|me|product.shop.svc port 80 is not called b\n=",
    ),
    "wait_for_proxy: a listener that is there": (
        "time_passes; direct_curl() { :; }; LISTENER=$SERVER; wait_for_proxy; echo $? $SECONDS; LISTENER=; wait_for_proxy; echo $? $SECONDS",
        "0 0\n0 0",
    ),
    "wait_for_proxy: its admin port, and its listener": (
        "time_passes; fail() { echo \"$SECONDS $*\"; exit 1; }; direct_curl() { ((++tries > 2)); }; wait_for_proxy; echo $tries; direct_curl() { return 7; }; (wait_for_proxy) 2>&1; "
        "direct_curl() { :; }; LISTENER=1; (wait_for_proxy) 2>&1 | cut -c -45",
        "3\n4 Envoy does not answer on its admin port: the proxy is not running\n4 the proxy has no listener on port 1: does t",
    ),
    "main: what came in, and then each target with its columns": (
        "clusters=('spiffe://caller\"'); wait_for_proxy() { :; }; verify_target() { echo \"$SERVICE $PORT $URL_PATH $MODE =$ENDPOINTS=$RANGES=$GATEWAYS=$MACHINES\"; note broken; }; "
        "check_inbound() { echo \"inbound $1 $PROTOCOL $SERVICE $MODE\"; }; line=$'a\\t80\\tgrpc\\t-\\t200\\t3\\twarn\\tx\\t-\\t-\\t-\\t0\\t-'; TARGETS=$line INBOUND=$'81\\thttp'; (main) 2>&1; echo $?; "
        "TARGETS=${line/warn/fail}$'\\n'${line/-/\\/path} INBOUND=; (main) 2>&1; echo $?; TARGETS='' INBOUND=$'81\\thttp\\n82\\ttcp'; (main) 2>&1; echo $?",
        "inbound 81 http a warn\na 80 /grpc.health.v1.Health/Check warn ====\nme: broken\n0\n"
        "a 80 /grpc.health.v1.Health/Check fail ====\na 80 /path warn ====\nme: broken\nme: broken\n1\ninbound 81 http  \ninbound 82 tcp  \n0",
    ),
    "main: a machine that was not called calls nothing": (
        "in_short; clusters=(); wait_for_proxy() { :; }; verify_target() { echo called; }; uptime() { echo 3s; }; line=$'a\\t80\\ttcp\\t-\\t200\\t3\\tfail\\tx\\t-\\t-\\t-\\t0\\t-'; "
        "show() { (main) >\"$HOME/shown\" 2>&1; echo \"$?\"; cut -c -62 \"$HOME/shown\"; }; TARGETS=$line INBOUND=$'81\\ttcp'; show; TARGETS=${line/fail/warn}; show; "
        "clusters=('inbound|81||::10.0.0.2:81::rq_total::1'); show",
        "1\n|by-chance|failed|me|no call from a pod has reached port 81 i\n|by-chance|failed|me|a port 80 is not called by a machine tha\n"
        "me: no call from a pod has reached port 81 in the 3s since the\n"
        "0\nme: no call from a pod has reached port 81 in the 3s since the\n|by-chance|failed|me|no call from a pod has reached port 81 i\n"
        "|by-chance|failed|me|a port 80 is not called by a machine tha\n0\n|by-chance|proved||\ncalled",
    ),
    "converse: an endpoint": (
        "LISTENER=$SERVER HEADERS=$'x-a: 1\\nx-b: 2'; converse 10.0.0.1:80; sent",
        "200\tapplication\tvia_upstream\nGET /health HTTP/1.1\nhost: product.shop.svc\nx-istio-vm-mesh-endpoint: 10.0.0.1:80\n"
        "x-istio-vm-mesh-target: product.shop.svc:80\nx-a: 1\nx-b: 2\nconnection: close\n",
    ),
    "converse: without headers, on another port": (
        "LISTENER=$SERVER PORT=81; converse 10.0.0.1:80; sent",
        "200\tapplication\tvia_upstream\nGET /health HTTP/1.1\nhost: product.shop.svc:81\nx-istio-vm-mesh-endpoint: 10.0.0.1:80\n"
        "x-istio-vm-mesh-target: product.shop.svc:81\nconnection: close\n",
    ),
    "converse: gRPC": (
        "LISTENER=$SERVER PROTOCOL=grpc; read_response() { IFS= read -r line <&3; echo \"${line%$'\\r'}\"; }; converse 10.0.0.1:80; sent | grep -v '^x-'",
        "HTTP/1.1 200 OK\nPOST /health HTTP/1.1\nhost: product.shop.svc\ncontent-type: application/grpc\nte: trailers\ncontent-length: 5\nconnection: close\n\n00000",
    ),
    "converse: bytes": (
        "LISTENER=$SERVER PROTOCOL=tcp; watch_connection() { echo watched; }; converse 10.0.0.1:80; sent; converse 10.0.0.9:80",
        "watched\nCONNECT product.shop.svc:80 HTTP/1.1\nhost: product.shop.svc:80\nx-istio-vm-mesh-endpoint: 10.0.0.1:80\n"
        "x-istio-vm-mesh-target: product.shop.svc:80\n503\tcaller\treset",
    ),
    "converse: by name": (
        "SERVICE=127.0.0.1 PORT=$SERVER; converse; sent | sed s/$SERVER/PORT/; PROTOCOL=tcp; watch_connection() { echo \"watched ${result-none}\"; }; converse",
        "200\tapplication\tvia_upstream\nGET /health HTTP/1.1\nhost: 127.0.0.1:PORT\nconnection: close\nwatched none",
    ),
    "converse: no connection": ("SERVICE=127.0.0.1 PORT=1; converse; LISTENER=1; converse 10.0.0.1:80", "no connection\tcaller\tthe caller can open no connection\n" * 2),
    "start_call: an endpoint, or the name": (
        "converse() { echo \"$#:$SERVICE\"; }; start_call 10.0.0.1:80; start_call name; converse() { return 1; }; start_call name",
        "10.0.0.1:80\t1:product.shop.svc\nname\t0:product.shop.svc\nname\tno answer\tcaller\tno connection by its name",
    ),
    "start_calls: so many at once": (
        "AT_ONCE=2; wait() { echo wait; builtin wait; }; start_call() { echo $1; }; start_calls a b c d e | sort",
        "a\nb\nc\nd\ne\nwait\nwait\nwait",
    ),
    "call_all: takes all results down, with a byte in turn": (
        "start_calls() { for each; do printf '%s\\t%s\\tapplication\\t\\n' $each $status_of; done; }; status_of=503; real_call_all a b; status_of=200; real_call_all b; "
        "echo \"${!failed[*]} ${calls[a]} ${calls[b]} ${answers[b]} $attempt $FIRST_BYTE\"",
        " 1 2 1 1 \\x10",
    ),
    "inbound_calls: of this port alone": (
        "clusters=('inbound|80||::10.0.0.2:80::rq_total::3' 'inbound|81||::10.0.0.2:81::rq_total::5' 'InboundPassthroughCluster::10.0.0.2:80::rq_total::4' "
        "'inbound|80||::10.0.0.2:80::cx_total::9'); inbound_calls 80; inbound_calls 82",
        "7\n0",
    ),
}  # fmt: skip
"""A text of bash, and what it prints, by what it shows."""


@pytest.fixture(scope="module")
def outputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the cases print, each in a process of its own: those that are selected."""
    functions = [each for each in request.session.items if isinstance(each, pytest.Function) and each.path == request.path]
    names = [str(each.callspec.params["case"]) for each in functions]
    home = tmp_path_factory.mktemp("cases")
    cases = "\n".join(f"( {CASES[name][0]}\n) </dev/null 2>&1; echo '--{number}--'" for number, name in enumerate(names))
    with _server(home / "request") as port:
        done = Sourced(scripts=[SCRIPT], programs=home).run(f"SERVER={port}\n{SETUP}\n{cases}")
    parts = re.split(r"--\d+--\n", done.stdout)
    assert len(parts) == len(names) + 1, done.stderr
    return dict(zip(names, parts, strict=False))


@contextmanager
def _server(request: Path) -> Iterator[int]:
    """Answer on a port, as the caller's proxy does, and write what was sent into a file."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            text = b""
            while line := self.rfile.readline().removesuffix(b"\r\n"):
                text += line + b"\n"
            self.connection.settimeout(5 if b"content-length" in text else 0.05)
            with suppress(TimeoutError):
                text += b"\n" + self.rfile.read(5)
            request.write_bytes(text)
            status = (
                b"503 x\r\nx-istio-vm-mesh-details: reset" if b"10.0.0.9" in text else b"200 OK\r\nx-istio-vm-mesh-details: via_upstream"
            )
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\nx-envoy-upstream-service-time: 1\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("case", CASES)
def test_a_function_decides_by_all_of_its_conditions(case: str, outputs: dict[str, str]) -> None:
    assert outputs[case].rstrip() == CASES[case][1].rstrip()
