# Looks at this machine and prints key=value lines; changes nothing. Neither the token nor a key is
# printed: of the token only when it expires. The functions of lib.sh stand before this text.
# Variables: GATEWAY (address of the east-west gateway, or ""), GATEWAY_PORT.
ROOT='' # of tests
STATE=/var/lib/istio-vm-mesh
PACKAGE=/opt/istio-vm-mesh/current
TOKEN_FILE=$STATE/var/run/secrets/tokens/istio-token
CERTIFICATE=$STATE/etc/certs/cert-chain.pem
PROGRAMS=$PACKAGE/usr/local/bin
GUARD=/opt/istio-vm-mesh/scripts/redirect_guard.sh
GUARD_UNIT=/etc/systemd/system/istio-vm-mesh-redirect.service

print_unit() {
  local up since
  systemctl show istio-vm-mesh --property=LoadState,ActiveState,NRestarts 2>/dev/null
  # Seconds since the boot: systemd 247 and older print times only in words, and a clock that was
  # set does not change these.
  up=$(cut -d ' ' -f 1 /proc/uptime)
  since=$(systemctl show istio-vm-mesh --property=ActiveEnterTimestampMonotonic --value 2>/dev/null)
  echo "up=${up%.*}"
  [ "${since:-0}" = 0 ] || echo "active=$((${up%.*} - since / 1000000))"
}

print_versions() {
  echo "agent=$(timeout 5 "$PROGRAMS/pilot-agent" version --short 2>/dev/null |
    sed -n 's/^client version: //p')"
  echo "envoy=$(direct_curl --max-time 3 http://127.0.0.1:15000/server_info |
    sed -n 's/^ *"version": "[^/]*\/\([^/]*\)\/.*/\1/p' | head -n 1)"
}

# What is missing of the redirection. A network's gateway has none.
print_redirection() {
  local missing file
  [ -e "$GUARD_UNIT" ] || return 0
  missing=$(
    set -a
    for file in "$STATE"/{cluster,overrides}.env; do
      # shellcheck disable=SC1090 # written by the join
      if [ -r "$file" ]; then . "$file"; fi
    done
    bash "$GUARD" check
    systemctl is-active --quiet istio-vm-mesh-redirect ||
      echo "istio-vm-mesh-redirect.service does not run"
  )
  echo "redirection=$(paste -sd ';' <<<"$missing")"
}

# What differs from what the join wrote, and the unit that a boot would not start.
print_files() {
  local differ
  [ -e "$STATE/owner" ] || return 0 # it has not joined
  if [ ! -r "$STATE/written" ]; then
    echo "files=$STATE/written" # nothing to compare with
    return
  fi
  differ=$(
    sed 's/^[^ ]*  //' "$STATE/written" | sort -u | describe_files "$ROOT/" | sort |
      comm -13 - <(sort "$STATE/written") | sed 's#^[^ ]*  #/#'
    [ "$(readlink "$PACKAGE")" = "packages/$(sed -n 's/^package-sha256=//p' "$STATE/joined")" ] ||
      echo "$PACKAGE"
    [ ! -r "$PACKAGE/.description" ] || describe "$PACKAGE/" | sort |
      comm -13 - <(sort "$PACKAGE/.description") | sed -E "s#^.* \.(/|\$)#$PACKAGE/#"
    systemctl is-enabled --quiet istio-vm-mesh ||
      echo "istio-vm-mesh.service, which is not enabled"
  )
  echo "files=$(sort -u <<<"$differ" | paste -sd ';')"
}

main() {
  clean_environment
  echo "time=$(date +%s.%N)"
  print_unit
  print_versions
  echo "ready=$(direct_curl --max-time 3 --output /dev/null --write-out '%{http_code}' \
    http://127.0.0.1:15021/healthz/ready)"
  print_redirection
  print_files
  # The certificate is public; the key beside it is not touched.
  [ ! -r "$CERTIFICATE" ] || echo "certificate=$(base64 -w0 <"$CERTIFICATE")"
  [ ! -r "$TOKEN_FILE" ] || echo "token=$(token_claim "$TOKEN_FILE" exp)"
  if [ -n "$GATEWAY" ] && id istio-proxy >/dev/null 2>&1; then
    if can_connect "$GATEWAY" "$GATEWAY_PORT" 3 2>/dev/null; then
      echo gateway=yes
    else
      echo gateway=no
    fi
  fi
}

if ! (return 0 2>/dev/null); then main </dev/null; fi
