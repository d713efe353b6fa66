# The scene of scripts/demo that it shows by default: five containers and the host on one switch.

lab_space web db cache log router
CONFIGURATION=$(cat <<TOML
[switch]
workers = "auto"

[[bridge]]
name = "blue"

[[port]]
name = "web"                    # a container on a TAP: the default
bridge = "blue"
type = "tap"
netns = "$LAB-web"
vlan = 10
address = ["198.18.77.11/24", "fd77::11/64"]

[[port]]
name = "db"
bridge = "blue"
type = "tap"
netns = "$LAB-db"
vlan = 10
address = ["198.18.77.12/24", "fd77::12/64"]

[[port]]
name = "cache"                  # a veth pair, our end by AF_PACKET
bridge = "blue"
type = "veth"
netns = "$LAB-cache"
vlan = 10
address = ["198.18.77.13/24", "fd77::13/64"]

[[port]]
name = "log"                    # a veth pair, our end by AF_XDP
bridge = "blue"
type = "veth"
driver = "afxdp"
netns = "$LAB-log"
vlan = 10
address = ["198.18.77.14/24", "fd77::14/64"]

[[port]]
name = "router"                 # a trunk: VLAN 20 tagged, VLAN 10 untagged
bridge = "blue"
type = "tap"
netns = "$LAB-router"
trunk = [10, 20]
native_vlan = 10
address = ["198.18.77.15/24", "fd77::15/64"]

[[port]]
name = "host"                   # the machine itself
bridge = "blue"
type = "tap"
ifname = "${LAB}0"
vlan = 10
address = ["198.18.77.1/24", "fd77::1/64"]
TOML
)
lab_switch "$CONFIGURATION"

title "The switch"
cat <<'TEXT'
   web (tap) --+            +-- cache (veth, AF_PACKET)
               |            |
    db (tap) --+-- vswitchd +-- log (veth, AF_XDP)
               |            |
  host (tap) --+            +-- router (tap, trunk 10 20)
TEXT
ctl port list

title "Ping from web, IPv4 and IPv6"
for row in db:12 cache:13 log:14 router:15 host:1; do
  for address in 198.18.77.${row#*:} fd77::${row#*:}; do
    printf '  %-8s %-14s %s\n' "${row%:*}" "$address" "$(answered web "$address")"
  done
done
await 10 ping -c 1 -W 1 198.18.77.14
echo "  and from the host to log: answered"

title "Speed, beside a Linux bridge with veth in the same run ($FOR s each; ends and switch share $(nproc) CPUs)"
SUBNET=198.18.99 lab_bridge bridge left right
printf '  %-28s %14s %14s %9s %14s\n' path "TCP Gbit/s" "UDP Gbit/s" "UDP lost" "round trip us"
row() {
  local tcp udp trip
  await 10 inside "$3" ping -c 1 -W 1 "$4"
  read -r tcp _ _ < <(iperf "$2" "$3" "$4" -t "$FOR")
  read -r udp _ loss < <(iperf "$2" "$3" "$4" -t "$FOR" -u -b 0 -l 1400)
  read -r trip _ _ < <(round_trip "$2" "$3" "$4" 2000)
  printf '  %-28s %14s %14s %8s%% %14s\n' "$1" "$tcp" "$udp" "$loss" "$trip"
}
ctl worker reset >/dev/null
row "web to db (tap)" db web 198.18.77.12
row "web to cache (veth, packet)" cache web 198.18.77.13
row "web to log (veth, AF_XDP)" log web 198.18.77.14
row "Linux bridge (veth)" right left 198.18.99.2
cat <<'TEXT'
  UDP is sent without a limit. What is lost, the receiving program did not read in time; where the CPUs do not suffice
  for all, the switch too (`missed` in `port list`). A bridge works on the sender's time, so it slows the sender down.
TEXT

title "Who is where (FDB)"
ctl fdb list

title "What the workers did"
ctl worker list

title "A frame of a VLAN that the trunk does not carry is dropped, by name"
inside router "$BIN/netprobe" frame-send eth0 "ffffffffffff0200000000158100001e88b5$(printf '%084d' 0)" 3
ctl drops

title "Why a frame goes where it goes: a trace, which sends nothing"
MAC=$(inside cache cat /sys/class/net/eth0/address)
ctl trace web "eth(src=$(inside web cat /sys/class/net/eth0/address),dst=$MAC) ipv4(src=198.18.77.11,dst=198.18.77.13) tcp(dport=80)"
