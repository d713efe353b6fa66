# Open vSwitch's userspace datapath as a peer: unpacked (not installed), with its own database and sockets, in a
# namespace. To be sourced after scripts/lab.bash.

# ovs_unpack FOLDER PACKAGE: of which of them it is run.
ovs_unpack() {
  scripts/unpack-packages -d "build/peers/$1" bookworm "$2"
  OVS_ROOT=$PWD/build/peers/$1/root
  OVS_LIBRARIES=$OVS_ROOT/usr/lib/x86_64-linux-gnu:$OVS_ROOT/lib/x86_64-linux-gnu
}

# ovs PROGRAM ARGUMENTS...: runs one of its programs in the peer's namespace.
ovs() {
  local program
  program=$(find "$OVS_ROOT/usr" -name "$1" -type f -perm -u+x | head -n 1)
  shift
  inside ovs env LD_LIBRARY_PATH="$OVS_LIBRARIES" OVS_RUNDIR="$LAB_FOLDER" OVS_LOGDIR="$LAB_FOLDER" OVS_DBDIR="$LAB_FOLDER" \
    OVS_SYSCONFDIR="$LAB_FOLDER" RUNTIME_DIRECTORY="$LAB_FOLDER" LIBXDP_OBJECT_PATH="${OVS_LIBRARIES%%:*}/bpf" "$program" "$@"
}

# ovs_vsctl ARGUMENTS...: its configuration.
ovs_vsctl() { ovs ovs-vsctl --db="unix:$LAB_FOLDER/db.sock" "$@"; }

# ovs_daemon PROGRAM [COLUMN...]: starts the daemon, with these columns of its table Open_vSwitch set before.
ovs_daemon() {
  local program=$1
  shift
  ovs ovsdb-tool create "$LAB_FOLDER/conf.db" "$OVS_ROOT/usr/share/openvswitch/vswitch.ovsschema"
  ovs ovsdb-server "$LAB_FOLDER/conf.db" --remote="punix:$LAB_FOLDER/db.sock" --pidfile="$LAB_FOLDER/ovsdb.pid" --detach --log-file
  ovs_vsctl --no-wait init
  (($# == 0)) || ovs_vsctl --no-wait set Open_vSwitch . "$@"
  ovs "$program" "unix:$LAB_FOLDER/db.sock" --pidfile="$LAB_FOLDER/ovs.pid" --detach --log-file >/dev/null 2>&1
  LAB_PIDS+=("$(<"$LAB_FOLDER/ovs.pid")" "$(<"$LAB_FOLDER/ovsdb.pid")")
  ovs_vsctl add-br br0 -- set bridge br0 datapath_type=netdev
}

# ovs_start TYPE END...: a bridge with a port of this type (system: AF_PACKET; afxdp) on a veth pair to each end.
# The ends' transmit checksum offload is switched off, without which TCP does not pass (its documentation says so).
ovs_start() {
  local type=$1 number=0 end
  shift
  ovs_unpack ovs openvswitch-switch
  lab_space ovs "$@"
  ovs_daemon ovs-vswitchd
  for end in "$@"; do
    number=$((number + 1))
    lab_pair ovs "o$number" "$end" "198.18.98.$number/24"
    inside "$end" ethtool -K eth0 tx off >/dev/null
    ovs_vsctl add-port br0 "o$number" -- set interface "o$number" type="$type"
  done
}

# ovs_dpdk_start NAME=SOCKET...: the build with DPDK: a bridge with vhost-user ports that connect to these sockets, its
# polling thread on CPU 1, in 512 MB of huge pages that must be there. OVS_COLUMNS are further columns of its table
# Open_vSwitch.
OVS_COLUMNS=()
ovs_dpdk_start() {
  local port
  ovs_unpack ovs-dpdk openvswitch-switch-dpdk
  lab_space ovs
  ovs_daemon ovs-vswitchd-dpdk other_config:dpdk-init=true other_config:dpdk-socket-mem=512 \
    other_config:dpdk-extra="--no-pci --in-memory --no-telemetry" other_config:dpdk-lcore-mask=1 other_config:pmd-cpu-mask=2 \
    "${OVS_COLUMNS[@]}"
  for port in "$@"; do
    ovs_vsctl add-port br0 "${port%%=*}" -- set interface "${port%%=*}" type=dpdkvhostuserclient \
      options:vhost-server-path="${port#*=}"
  done
}

# ovs_appctl COMMAND...: asks the daemon.
ovs_appctl() { ovs ovs-appctl -t "$(echo "$LAB_FOLDER"/ovs-vswitchd*."$(<"$LAB_FOLDER/ovs.pid")".ctl)" "$@"; }

# ovs_pause, ovs_resume: its polling threads must not take a core from the others' turns.
ovs_pause() { kill -STOP "$(<"$LAB_FOLDER/ovs.pid")"; }
ovs_resume() { kill -CONT "$(<"$LAB_FOLDER/ovs.pid")"; }
