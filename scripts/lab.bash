# Namespaces, switches and figures for the demo and the side-by-side benchmarks. To be sourced by bash; the caller
# sets LAB (a short tag that names everything made here) and then calls lab_open.
#
# Everything is made in namespaces of its own and taken away at the end, also after an interrupt. No address and no
# device that the machine had before is touched.

lab_open() {
  ((EUID == 0)) || { echo "$0: network namespaces need root: run this as root" >&2; exit 1; }
  LAB_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/$LAB.XXXXXX")
  LAB_SPACES=() LAB_PIDS=() LAB_SWITCH= LAB_AT=
  declare -gA LAB_SWITCHES=()
  BIN=${BIN:-$PWD/target/release}
  trap lab_close EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

lab_close() {
  set +e
  trap '' INT TERM
  lab_stop
  local pid space
  for pid in "${LAB_PIDS[@]}"; do kill "$pid" 2>/dev/null; kill -CONT "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
  for space in "${LAB_SPACES[@]}"; do ip netns delete "$space" 2>/dev/null; done
  rm -rf "$LAB_FOLDER"
  return 0
}

# lab_space NAME...: namespaces called $LAB-NAME, each with its loopback up.
lab_space() {
  local name
  for name in "$@"; do
    ip netns add "$LAB-$name"
    LAB_SPACES+=("$LAB-$name")
    ip -n "$LAB-$name" link set lo up
  done
}

# inside NAME COMMAND...: runs it in a namespace.
inside() {
  local name=$1
  shift
  ip netns exec "$LAB-$name" "$@"
}

# lab_bridge NAME END...: a Linux bridge in a namespace of its own, with a veth pair to each end (ends are made).
# The n-th end gets address SUBNET.n/24 (SUBNET defaults to 198.18.99) and is called eth0 inside.
lab_bridge() {
  local name=$1 number=0 end
  shift
  lab_space "$name" "$@"
  ip -n "$LAB-$name" link add br0 type bridge
  ip -n "$LAB-$name" link set br0 up
  for end in "$@"; do
    number=$((number + 1))
    lab_pair "$name" "p$number" "$end" "${SUBNET:-198.18.99}.$number/24"
    ip -n "$LAB-$name" link set "p$number" master br0
  done
}

# lab_pair SPACE DEVICE END [ADDRESS...]: a veth pair, DEVICE in SPACE and eth0 in END.
lab_pair() {
  local space=$LAB-$1 device=$2 end=$LAB-$3 address
  shift 3
  ip -n "$space" link add "$device" type veth peer name eth0 netns "$end"
  ip -n "$space" link set "$device" addrgenmode none up
  # IPv4 knows no detection of duplicates, which takes a second.
  for address in "$@"; do ip -n "$end" address add "$address" dev eth0 $([[ $address != *:* ]] || echo nodad); done
  ip -n "$end" link set eth0 up
}

# lab_switch CONFIGURATION [SPACE]: starts vswitchd (in a namespace, or on the machine itself) and waits until it is
# ready. One a place; `ctl` speaks to the one at LAB_AT, which is the last that was started.
lab_switch() {
  local prefix=() folder
  [[ -z ${2:-} ]] || prefix=(ip netns exec "$LAB-$2")
  LAB_AT=${2:-machine}
  folder=$LAB_FOLDER/switch-$LAB_AT
  mkdir -p "$folder"
  printf '%s\n' "$1" >"$folder/switch.toml"
  "${prefix[@]}" "$BIN/vswitchd" --config "$folder/switch.toml" --socket "$folder/control.sock" \
    --state-dir "$folder/state" >"$folder/ready" 2>"$folder/log" &
  LAB_SWITCH=$!
  LAB_SWITCHES[$LAB_AT]=$LAB_SWITCH
  await 20 lab_ready_or_gone "$folder" "$LAB_SWITCH" || true
  if [[ ! -s $folder/ready ]]; then
    echo "vswitchd did not get ready:" >&2
    cat "$folder/log" >&2
    exit 1
  fi
}

lab_ready_or_gone() { [[ -s $1/ready ]] || ! kill -0 "$2"; }

# lab_stop: takes every port away, so that no persistent device stays, and ends the switches.
lab_stop() {
  local pid
  for LAB_AT in "${!LAB_SWITCHES[@]}"; do
    pid=${LAB_SWITCHES[$LAB_AT]}
    printf '[switch]\n' >"$LAB_FOLDER/empty.toml"
    ctl apply "$LAB_FOLDER/empty.toml" >/dev/null 2>&1
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    rm -rf "$LAB_FOLDER/switch-$LAB_AT"
  done
  LAB_SWITCHES=() LAB_SWITCH=
}

ctl() { "$BIN/vswitchctl" --socket "$LAB_FOLDER/switch-$LAB_AT/control.sock" "$@"; }

# ctl_numbers FIELD COMMAND...: the values of a numeric field in a command's JSON.
ctl_numbers() {
  local field=$1
  shift
  ctl --json "$@" | tr ',{}' '\n' | awk -F: -v field="\"$field\"" '{gsub(/[[:space:]]/, "")} $1 == field {print $2}'
}

# background COMMAND...: runs until lab_close or `background_end`.
background() {
  "$@" >/dev/null 2>&1 &
  LAB_PIDS+=($!)
}

# await SECONDS COMMAND...: until the command succeeds.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { echo "waited in vain for: $*" >&2; return 1; }
    read -r -t 0.02 _ < <(:) || true
  done
}

# busy_ticks: CPU time that the whole machine has used, in 10 ms.
busy_ticks() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8; exit}' /proc/stat; }

# iperf SERVER CLIENT ADDRESS ARGUMENTS...: one run; prints "GBIT_PER_S CPU_SECONDS_PER_GB LOSS_PERCENT".
# PIN=cpu puts both ends on one CPU.
iperf() (
  set +e
  local server=$1 client=$2 address=$3 pin=() before ticks
  shift 3
  [[ -z ${PIN:-} ]] || pin=(taskset -c "$PIN")
  ip netns exec "$LAB-$server" "${pin[@]}" iperf3 -s -1 --forceflush >"$LAB_FOLDER/server" 2>&1 &
  local pid=$!
  await 5 grep -q listening "$LAB_FOLDER/server" || { kill "$pid"; wait "$pid"; echo "0 0 100"; exit; }
  before=$(busy_ticks)
  # A transfer that never ends (a peer that loses every segment) is cut off and counts as nothing.
  if ! timeout 30 ip netns exec "$LAB-$client" "${pin[@]}" iperf3 -f g -c "$address" "$@" >"$LAB_FOLDER/client" 2>&1; then
    [[ -n ${LAB_QUIET:-} ]] || tail -n 2 "$LAB_FOLDER/client" >&2
    kill "$pid" 2>/dev/null
  fi
  ticks=$(($(busy_ticks) - before))
  wait "$pid" 2>/dev/null
  awk -v ticks="$ticks" '
    /receiver/ && (!sum || /SUM/) {
      if (/SUM/) sum = 1
      for (i = 1; i <= NF; i++) {
        if ($i ~ /bits\/sec/) rate = $(i - 1)
        if ($i ~ /Bytes$/) bytes = $(i - 1) * ($i ~ /^G/ ? 1 : $i ~ /^M/ ? 0.001 : 0.000001) * 1.073741824
        if ($i ~ /^\(/) loss = substr($i, 2) + 0
      }
    }
    END {printf "%.2f %.2f %.1f\n", rate, (bytes > 0 ? ticks / 100 / bytes : 0), loss}' "$LAB_FOLDER/client"
)

# round_trip SERVER CLIENT ADDRESS COUNT: UDP round trips, "P50_US P99_US LOST". PIN as above.
round_trip() (
  set +e
  local pin=()
  [[ -z ${PIN:-} ]] || pin=(taskset -c "$PIN")
  ip netns exec "$LAB-$1" "${pin[@]}" "$BIN/netprobe" echo "$3:7001" >"$LAB_FOLDER/echo" 2>&1 &
  local pid=$!
  if await 5 grep -q ready "$LAB_FOLDER/echo"; then
    inside "$2" "${pin[@]}" "$BIN/netprobe" round-trips "$3:7001" "$4" |
      awk -F'[:,}]' '{for (i = 1; i < NF; i++) {gsub(/[^a-z0-9_]/, "", $i); v[$i] = $(i + 1)}
        printf "%.1f %.1f %d\n", v["p50_us"], v["p99_us"], v["lost"]}'
  fi
  kill "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  true
)

# median NUMBER...
median() { printf '%s\n' "$@" | sort -g | awk '{v[NR] = $1} END {print NR ? v[int((NR + 1) / 2)] : "-"}'; }
