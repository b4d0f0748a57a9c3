# Looks at this machine and prints key=value lines; changes nothing. Neither the token nor a key is printed: of the token only when it expires.
# Variable: GATEWAY (address of the east-west gateway, or "").
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
admin=http://127.0.0.1:15000
token=/var/lib/istio/envoy/istio-token
certificate=/etc/certs/cert-chain.pem

echo "time=$(date +%s.%N)"
systemctl show istio --property=LoadState,ActiveState,NRestarts 2>/dev/null
# Seconds since the boot: systemd 247 and older print times only in words, and a clock that was set does not change these.
up=$(cut -d ' ' -f 1 /proc/uptime)
since=$(systemctl show istio --property=ActiveEnterTimestampMonotonic --value 2>/dev/null)
echo "up=${up%.*}"
[ "${since:-0}" = 0 ] || echo "active=$((${up%.*} - since / 1000000))"
agent=$(timeout 5 /usr/local/bin/pilot-agent version --short 2>/dev/null | sed -n 's/^client version: //p')
[ -z "$agent" ] || echo "agent=$agent"
envoy=$(curl --silent --max-time 3 $admin/server_info | sed -n 's/^ *"version": "[^/]*\/\([^/]*\)\/.*/\1/p' | head -n 1)
[ -z "$envoy" ] || echo "envoy=$envoy"
echo "ready=$(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' http://127.0.0.1:15021/healthz/ready)"
# The certificate is public; the key beside it is not touched.
[ ! -r $certificate ] || echo "certificate=$(base64 -w0 <$certificate)"
if [ -r $token ]; then
  claims=$(cut -d . -f 2 $token | tr '_-' '/+')
  while [ $((${#claims} % 4)) -ne 0 ]; do claims="$claims="; done
  echo "token=$(printf %s "$claims" | base64 -d 2>/dev/null | sed -n 's/.*"exp":\([0-9]*\).*/\1/p')"
fi
if [ -n "$GATEWAY" ] && id istio-proxy >/dev/null 2>&1; then
  # As istio-proxy, whose connections are not captured.
  if runuser -u istio-proxy -- timeout 3 bash -c "exec 3<>/dev/tcp/$GATEWAY/15012" 2>/dev/null; then echo gateway=yes; else echo gateway=no; fi
fi
