# Functions that the scripts on machines and in pods share; this text stands before the scripts'
# text.

# Ends the script with a cause. FAILURE_STATUS is 0 where a cause is a warning. SUBJECT is what the
# cause is of, if it is not this machine. A script that has something to bring back does it in
# before_failure, and ends the cause with ENDING.
fail() { # cause
  before_failure
  echo "${SUBJECT:-machine $MACHINE}: $*$ENDING" >&2
  exit "$FAILURE_STATUS"
}
before_failure() { :; }
SUBJECT=''
ENDING=''
FAILURE_STATUS=1

# Makes a script independent of its user's environment, and of a /tmp that is full: bash writes long
# texts to files there (`<<<`). Variables of proxies stay: the package's download uses them, and
# nothing else does. `find` fails in a directory that it cannot go back to, such as a home of NFS
# that root cannot enter (root_squash).
clean_environment() {
  cd /
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
  # TMOUT ends every read of bash, so also the wait for an answer.
  unset BASH_ENV ENV CDPATH TMOUT GREP_OPTIONS TAR_OPTIONS POSIXLY_CORRECT CURL_HOME
  IFS=$' \t\n'
}

# Sends a request to the computer that runs Pulumi, over standard output, and reads the answer from
# standard input (3). It fails where the answer is no, or does not come within ASK seconds: that
# computer may be gone. Without ASK (in an instance group) nothing is sent, and the answer is yes.
# With GOES_ON the script continues without an answer.
ask() { # words
  local answer='' status=0
  [ -n "${ASK:-}" ] || return 0
  echo "istio-vm-mesh: ask $*"
  IFS= read -r -t "$ASK" -u 3 answer || status=$?
  if [ $status -gt 0 ]; then
    [ -z "${GOES_ON:-}" ] || return 0
    [ $status -le 128 ] || fail "the request '$*' was not answered within $ASK s"
    fail "the connection ended before the request '$*' was answered"
  fi
  case $answer in
  yes) ;;
  "no "*) fail "${answer#no }" ;;
  *) fail "the request '$*' was answered by '$answer'" ;;
  esac
}

# Sends a request to this machine or to the mesh: no proxy, and no settings of a user.
direct_curl() { # curl's arguments
  curl --disable --noproxy '*' --silent --fail "$@"
}

# Runs a command as istio-proxy where that user exists: the proxy redirects none of its connections.
as_proxy() { # command
  if id istio-proxy >/dev/null 2>&1; then set -- runuser -u istio-proxy -- "$@"; fi
  "$@"
}

# Opens a TCP connection that the proxy does not redirect, and closes it.
can_connect() { # host port seconds
  # shellcheck disable=SC2016 # the inner bash expands them
  as_proxy timeout "$3" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2"
}

# Prints a claim of a JWT.
token_claim() { # file claim
  claim_of "$(token_claims "$1")" "$2"
}

# Prints the claims of a JWT, as JSON. Of a token only the signature is secret.
token_claims() { # file
  local payload=''
  IFS=. read -r _ payload _ <"$1" || true # without a line's end
  payload=${payload//_//} payload=${payload//-/+}
  while [ $((${#payload} % 4)) -ne 0 ]; do payload="$payload="; done
  base64 -d 2>/dev/null <<<"$payload" || true
}

claim_of() { # claims, name
  [[ ! $1 =~ \"$2\":\[?\"?([^],\"}]*) ]] || echo "${BASH_REMATCH[1]}"
}

# Prints a string field of the JSON object on standard input.
json_field() { # name
  tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

# Sets NUMBER to an IPv4 address as a number.
ipv4_number() { # address
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  # shellcheck disable=SC2034 # call-service.sh reads it
  NUMBER=$(((a << 24) + (b << 16) + (c << 8) + d))
}

# Prints the digest, and the mode with the owner, of each file that standard input names. What the
# agent writes too is left out.
describe_files() ( # directory that the names are below
  cd "$1" || exit
  mapfile -t names < <(grep -v '/root-cert.pem$')
  b2sum "${names[@]}" || true
  stat --format '%A:%U:%G  %n' "${names[@]}" || true
) 2>/dev/null

# Prints modes, owners and digests of a directory's content.
describe() { # directory
  (
    cd "$1" || exit
    find . ! -name .description -printf '%M %U %G %l %p\n' | sort
    find . -type f ! -name .description -exec b2sum {} + | sort
  )
}

# Writes standard input to a file, which readers see whole or not at all.
write_file() { # path
  cat >"$1.new"
  mv -f "$1.new" "$1"
}
