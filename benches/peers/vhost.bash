# What the side-by-side runs between two vhost-user ports share: benches' vhost_generator on CPU 0, which is both ends
# of the traffic, writes every frame anew and looks at every one that comes; the switches on CPU 1, each of which
# stands still while it is not its turn. All memory is in huge pages, reserved here and given back. To be sourced after
# scripts/lab.bash, figures.bash and ovs.bash, and after lab_open.
#
# A switch is called `us`, `ovs` or `testpmd`, with a dash and more where one runs in several shapes.

PAGES_BEFORE=$(</proc/sys/vm/nr_hugepages)
finish() {
  local system
  # What stands still neither answers nor ends.
  for system in us ovs testpmd; do resume "$system" 2>/dev/null; done
  lab_close
  echo "$PAGES_BEFORE" >/proc/sys/vm/nr_hugepages
}
trap finish EXIT
echo $((PAGES_BEFORE + 768)) >/proc/sys/vm/nr_hugepages

TESTPMD=
pause() { kill -STOP "$(pid "$1")"; }
resume() { kill -CONT "$(pid "$1")"; }
pid() {
  case $1 in
    us*) echo "$LAB_SWITCH" ;;
    ovs*) cat "$LAB_FOLDER/ovs.pid" 2>/dev/null ;;
    testpmd) echo "$TESTPMD" ;;
  esac
}

# vhost_ports LINE: two ports of ours, a with this line of configuration, and b.
vhost_ports() {
  printf '[[port]]\nname = "a"\n%s\ntype = "vhost-user"\nsocket = "%s/us-a.sock"\n' "$1" "$LAB_FOLDER"
  printf '[[port]]\nname = "b"\n%s\ntype = "vhost-user"\nsocket = "%s/us-b.sock"\n' "${2-$1}" "$LAB_FOLDER"
}

# generate SYSTEM ARGUMENTS...: one run, its JSON in $LAB_FOLDER/json, and what the switch counted meanwhile in
# SWITCH_CYCLES: TSC cycles for a frame in turns that had some. The switch runs.
generate() {
  local system=$1 name=${1%%-*} line
  shift
  local arguments=("$LAB_FOLDER/$name-a.sock" "$LAB_FOLDER/$name-b.sock" --cpu 0 --switch-cpu 1 --huge --seconds "$FOR")
  [[ $name != ovs ]] || arguments+=(--server)
  case $name in
    us) ctl fdb flush >/dev/null ;;
    ovs) ovs_appctl fdb/flush >/dev/null ;;
  esac
  rm -f "$LAB_FOLDER/begun"
  mkfifo "$LAB_FOLDER/begun"
  timeout 90 "$BIN/vhost_generator" "${arguments[@]}" "$@" >"$LAB_FOLDER/json" 2>"$LAB_FOLDER/begun" &
  local generator=$! begun
  exec {begun}<"$LAB_FOLDER/begun"
  read -r -t 80 -u "$begun" line
  [[ $line == measuring ]] || echo "$system: $line" >&2
  SWITCH_CYCLES=-
  case $name in
    us)
      ctl worker reset >/dev/null
      sleep "$(awk -v s="$FOR" 'BEGIN {print s * 0.7}')"
      SWITCH_CYCLES=$(ctl_numbers cycles_per_frame worker list | awk '{printf "%.0f", $1}')
      ;;
    ovs)
      ovs_appctl dpif-netdev/pmd-stats-clear >/dev/null
      sleep "$(awk -v s="$FOR" 'BEGIN {print s * 0.7}')"
      SWITCH_CYCLES=$(ovs_appctl dpif-netdev/pmd-stats-show |
        awk '/avg processing cycles per packet/ {printf "%.0f\n", $(NF - 1); exit}')
      ;;
  esac
  wait "$generator"
  exec {begun}<&-
}

# value FIELD: of the last run's JSON.
value() { tr ',{}' '\n' <"$LAB_FOLDER/json" | awk -F': ' -v field="\"$1\"" '{gsub(/^ +/, "")} $1 == field {print $2}'; }

# prepare SYSTEM: brings a switch into its shape, and may put into FURTHER what the generator is to be told besides. For
# those who source this to say what that is.
prepare() { :; }

# measure CASE SYSTEM ARGUMENTS...: one run, noted.
measure() {
  local key=$1-$2
  resume "$2"
  FURTHER=()
  prepare "$2"
  generate "${@:2}" "${FURTHER[@]}"
  pause "$2"
  note "$key" "$(value mframes_per_s)" "${SWITCH_CYCLES:--}" "$(value client_idle)" "$(value core_distance_before_ns)" \
    "$(value core_distance_after_ns)" "$(value p50_us)" "$(value p99_us)" "$(value lost)" "$(value gbit_per_s)" \
    "$(value cycles_per_frame)" "$(value client_cycles_per_frame)"
}

# by_turns CASE SYSTEMS ARGUMENTS...: a case, on each of the systems in every turn.
by_turns() {
  local case=$1 systems=$2 turn system
  shift 2
  DISTANCES=()
  for ((turn = 0; turn < REPETITIONS; turn++)); do
    turn_begins
    for system in $systems; do measure "$case" "$system" "$@"; done
  done
}

# By system, as tables call it.
declare -A TITLE=([us]="us" [ovs]="OVS NORMAL" [testpmd]="testpmd io")

header() {
  echo "| case | switch | M frames/s (spread) | of OVS | switch cycles a frame | TSC by frames | client cycles a frame | client idle | cache line ns | lost |"
  echo "|---|---|---|---|---|---|---|---|---|---|"
}

# row CASE SYSTEM TEXT [OVS]: a line of a table of rates; OVS is the system of OVS that it is held to.
row() {
  local key=$1-$2
  echo "| $3 | ${TITLE[$2]} | $(figure "$key" 1) ($(spread "$key" 1)) | $(ratio "$(figure "$key" 1)" "$(figure "$1-${4:-ovs}" 1)") |" \
    "$(figure "$key" 2) | $(figure "$key" 10) | $(figure "$key" 11) | $(figure "$key" 3) |" \
    "$(spread "$key" 4), $(spread "$key" 5) | $(figure "$key" 8) |"
}

# rows CASE SYSTEMS TEXT [OVS]: all of a case.
rows() { for system in $2; do row "$1" "$system" "$3" "${@:4}"; done; }

# How it was done, for the head of every table.
setting() {
  echo "Both directions together, 256 entries a ring, mergeable buffers unless said otherwise. The client has CPU 0, the"
  echo "switch CPU 1. Switch cycles are what we and OVS count for a frame in turns that had some; TSC by frames is the"
  echo "clock divided by the rate, all that the core does: where the client is idle for no time, it is the limit, and"
  echo "that figure is the client's. The cache line's round trip between the two is given before and after."
  echo
}
