# Open vSwitch's userspace datapath as a peer: unpacked (not installed), with its own database and sockets, in a
# namespace. To be sourced after scripts/lab.bash.

OVS_ROOT=$PWD/build/peers/ovs/root
OVS_LIBRARIES=$OVS_ROOT/usr/lib/x86_64-linux-gnu:$OVS_ROOT/lib/x86_64-linux-gnu

# ovs PROGRAM ARGUMENTS...: runs one of its programs in the peer's namespace.
ovs() {
  local program
  program=$(find "$OVS_ROOT/usr" -name "$1" -type f -perm -u+x | head -n 1)
  shift
  inside ovs env LD_LIBRARY_PATH="$OVS_LIBRARIES" OVS_RUNDIR="$LAB_FOLDER" OVS_LOGDIR="$LAB_FOLDER" OVS_DBDIR="$LAB_FOLDER" \
    OVS_SYSCONFDIR="$LAB_FOLDER" LIBXDP_OBJECT_PATH="${OVS_LIBRARIES%%:*}/bpf" "$program" "$@"
}

# ovs_start TYPE END...: a bridge with a port of this type (system: AF_PACKET; afxdp) on a veth pair to each end.
# The ends' transmit checksum offload is switched off, without which TCP does not pass (its documentation says so).
ovs_start() {
  local type=$1 number=0 end
  shift
  scripts/unpack-packages -d build/peers/ovs bookworm openvswitch-switch
  lab_space ovs "$@"
  ovs ovsdb-tool create "$LAB_FOLDER/conf.db" "$OVS_ROOT/usr/share/openvswitch/vswitch.ovsschema"
  ovs ovsdb-server "$LAB_FOLDER/conf.db" --remote="punix:$LAB_FOLDER/db.sock" --pidfile="$LAB_FOLDER/ovsdb.pid" --detach --log-file
  ovs ovs-vsctl --no-wait --db="unix:$LAB_FOLDER/db.sock" init
  ovs ovs-vswitchd "unix:$LAB_FOLDER/db.sock" --pidfile="$LAB_FOLDER/ovs.pid" --detach --log-file >/dev/null 2>&1
  LAB_PIDS+=("$(<"$LAB_FOLDER/ovs.pid")" "$(<"$LAB_FOLDER/ovsdb.pid")")
  ovs ovs-vsctl --db="unix:$LAB_FOLDER/db.sock" add-br br0 -- set bridge br0 datapath_type=netdev
  for end in "$@"; do
    number=$((number + 1))
    lab_pair ovs "o$number" "$end" "198.18.98.$number/24"
    inside "$end" ethtool -K eth0 tx off >/dev/null
    ovs ovs-vsctl --db="unix:$LAB_FOLDER/db.sock" add-port br0 "o$number" -- set interface "o$number" type="$type"
  done
}

# ovs_pause, ovs_resume: its polling threads must not take a core from the others' turns.
ovs_pause() { kill -STOP "$(<"$LAB_FOLDER/ovs.pid")"; }
ovs_resume() { kill -CONT "$(<"$LAB_FOLDER/ovs.pid")"; }
