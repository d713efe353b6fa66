# The scene `overlay` of scripts/demo: three hosts on an ordinary routed IP network, and one bridge over all of them.

lab_space router one two three web db cache

# The network between them knows routes, and nothing of the overlay.
for number in 1 2 3; do
  host=$(cut -d ' ' -f "$number" <<<"one two three")
  addresses=("198.18.$number.1/24")
  ((number > 1)) || addresses=() # the switch has it instead
  lab_pair router "to$number" "$host" "${addresses[@]}"
  ip -n "$LAB-router" address add "198.18.$number.254/24" dev "to$number"
  ((number == 1)) || ip -n "$LAB-$host" route add default via "198.18.$number.254"
done
inside router sysctl -qw net.ipv4.ip_forward=1

# The third host is a kernel with what it has of its own: a bridge, and a VXLAN device in it.
ip -n "$LAB-three" link add br0 type bridge
ip -n "$LAB-three" link add vx0 mtu 1450 type vxlan id 5001 local 198.18.3.1 dstport 4789
for device in br0 vx0; do ip -n "$LAB-three" link set "$device" addrgenmode none up; done
ip -n "$LAB-three" link set vx0 master br0
for remote in 198.18.1.1 198.18.2.1; do inside three bridge fdb append 00:00:00:00:00:00 dev vx0 dst "$remote"; done
lab_pair three p1 cache 198.18.77.13/24 fd77::13/64
ip -n "$LAB-three" link set p1 master br0
ip -n "$LAB-cache" link set eth0 mtu 1450

lab_switch "$(cat <<TOML
[switch]
workers = "auto"

[[bridge]]
name = "blue"
vni = 5001

[[port]]
name = "web"
bridge = "blue"
type = "tap"
netns = "$LAB-web"
mtu = 1500                      # more than fits; without it, it is what the tunnels leave
address = ["198.18.77.11/24", "fd77::11/64"]

[[port]]
name = "uplink"
type = "packet"
device = "eth0"

[[underlay]]                    # the device is the switch's alone, with an address and a route of its own
name = "core"
port = "uplink"
share = false
address = ["198.18.1.1/24"]
route = [{to = "0.0.0.0/0", via = "198.18.1.254"}]

[[tunnel]]
name = "two"
type = "nvgre"
underlay = "core"
remote = ["198.18.2.1"]

[[tunnel]]
name = "three"
type = "vxlan"
underlay = "core"
remote = ["198.18.3.1"]
TOML
)" one

lab_switch "$(cat <<TOML
[switch]
workers = "auto"

[[bridge]]
name = "blue"
vni = 5001

[[port]]
name = "db"
bridge = "blue"
type = "tap"
netns = "$LAB-db"
address = ["198.18.77.12/24", "fd77::12/64"]

[[port]]
name = "uplink"
type = "afxdp"
device = "eth0"

[[underlay]]                    # the host's kernel keeps the device: its address and its routes serve us as well
name = "core"
port = "uplink"

[[tunnel]]
name = "one"
type = "nvgre"
underlay = "core"
remote = ["198.18.1.1"]

[[tunnel]]
name = "three"
type = "vxlan"
underlay = "core"
remote = ["198.18.3.1"]
TOML
)" two

title "Three hosts and a router"
cat <<'TEXT'
     host one              host two              host three
   web (tap)             db (tap)              cache (veth)
      |                     |                      |
   vswitchd              vswitchd              kernel's bridge and VXLAN
      | 198.18.1.1          | 198.18.2.1           | 198.18.3.1
   uplink (its own)      uplink (the host's)   uplink
      +---------------- router --------------------+
   one - NVGRE - two     one and two - VXLAN - three     VNI 5001 everywhere
TEXT

title "Ping between containers, IPv4 and IPv6"
for pair in web:db:12 web:cache:13 db:cache:13; do
  IFS=: read -r from to number <<<"$pair"
  for address in "198.18.77.$number" "fd77::$number"; do
    printf '  %-14s %-14s %s\n' "$from to $to" "$address" "$(answered "$from" "$address")"
  done
done
printf '  %-14s %-14s %s\n' "host two itself" 198.18.3.1 "$(answered two 198.18.3.1)"

title "The truth about sizes: a tunnel's headers do not fit the network's 1500 beside a packet of 1500"
echo "  db was made for an MTU of $(inside db cat /sys/class/net/eth0/mtu); web has one of $(inside web cat /sys/class/net/eth0/mtu), and is told:"
inside web ping -n -M do -c 2 -i 0.2 -W 1 -s 1472 198.18.77.12 2>&1 | grep -E 'mtu|received' | sed 's/^/  /' || true
inside web ping -n -M do -c 1 -W 1 -s 1422 198.18.77.12 | grep -E 'bytes from|received' | sed 's/^/  /'

title "Speed, both ways ($FOR s each; ends, switches and router share $(nproc) CPUs)"
printf '  %-28s %14s %14s %14s\n' path "TCP Gbit/s" "back" "round trip us"
row() {
  local there back trip
  read -r there _ _ < <(iperf "$2" "$3" "$4" -t "$FOR")
  read -r back _ _ < <(iperf "$2" "$3" "$4" -t "$FOR" -R)
  read -r trip _ _ < <(round_trip "$2" "$3" "$4" 1000)
  printf '  %-28s %14s %14s %14s\n' "$1" "$there" "$back" "$trip"
}
row "web to db (NVGRE)" db web 198.18.77.12
row "web to cache (VXLAN)" cache web 198.18.77.13

title "The tunnels of host one, and of host two"
for LAB_AT in one two; do ctl tunnel list; done

title "How far it is to the others, and how large a packet may be"
LAB_AT=one
for tunnel in two three; do ctl tunnel ping "$tunnel"; done

title "Who is where, by MAC and by IP address, as host one knows it"
ctl fdb list
ctl neighbour list

title "What becomes of a frame from web to cache: a trace, which sends nothing"
ctl trace web "eth(src=$(inside web cat /sys/class/net/eth0/address),dst=$(inside cache cat /sys/class/net/eth0/address)) ipv4(src=198.18.77.11,dst=198.18.77.13) tcp(dport=80)"
