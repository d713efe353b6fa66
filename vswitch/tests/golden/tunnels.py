#!/usr/bin/env python3
"""Makes tunnels.txt: tunnels' packets built by scapy, each with what we have to make of it.

    build/scapy/bin/python vswitch/tests/golden/tunnels.py > vswitch/tests/golden/tunnels.txt

(make.py says where scapy comes from.) Every line is: name, tab, what is expected, tab, bytes in hexadecimal. Expected is

    write KEY=VALUE ..    a template of ours with these values writes the same, and reads it
    read KEY=VALUE ..     we read these values, of what we would not write
    drop REASON           the drop reason
    other                 no tunnel's packet
"""
from scapy.all import GRE, ICMP, IP as ScapyIP, IPOption, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, \
    IPv6ExtHdrHopByHop, Dot1AD, Dot1Q, Ether, PadN, Raw, TCP, UDP, VXLAN, fragment
from scapy.contrib.geneve import GENEVE, GeneveOptions

E = dict(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
INNER = (Ether(src="02:00:00:00:0a:01", dst="02:00:00:00:0a:02")
         / ScapyIP(id=7, tos=0xBA, src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1024, dport=80) / Raw(b"golden"))
INNER_TOS = 0xBA
V4, V6 = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")
PORTS = {"vxlan": 4789, "geneve": 6081}


def network(addresses, entropy=0, tos=0, df=True, ttl=64, id=0, **more):
    src, dst = addresses
    if ":" in src:
        return IPv6(src=src, dst=dst, tc=tos, fl=entropy & 0xFFFFF, hlim=ttl, **more)
    return ScapyIP(src=src, dst=dst, tos=tos, id=id, flags="DF" if df else 0, ttl=ttl, **more)


def link(vlan=None):
    return Ether(**E) if vlan is None else Ether(**E) / Dot1Q(vlan=vlan)


def header(kind, vni, entropy=0, group=None, flow_id=None):
    if kind == "vxlan":
        if group is None:
            return VXLAN(flags="Instance", vni=vni)
        return VXLAN(flags="Instance+G", vni=vni, gpid=group)
    if kind == "geneve":
        return GENEVE(vni=vni)
    return GRE(proto=0x6558, key_present=1, key=vni << 8 | (entropy & 0xFF if flow_id is None else flow_id))


def udp(kind, entropy, checksum):
    ports = dict(sport=0xC000 | entropy & 0x3FFF, dport=PORTS[kind])
    return UDP(**ports) if checksum else UDP(chksum=0, **ports)


def written(name, kind, addresses, vni, entropy=0x12345678, vlan=None, dscp=None, df=True, ttl=64, id=0,
            checksum=False, group=None, flow_id=None, inner=INNER):
    tos = INNER_TOS if dscp is None else dscp << 2 | INNER_TOS & 3
    packet = link(vlan) / network(addresses, entropy, tos, df, ttl, 0 if df else id)
    if kind != "nvgre":
        packet /= udp(kind, entropy, checksum)
    packet /= header(kind, vni, entropy, group, flow_id) / inner
    fields = dict(kind=kind, src=addresses[0], dst=addresses[1], vni=vni, entropy=entropy, vlan=vlan, dscp=dscp, ttl=ttl,
                  id=id, df=int(df), checksum=int(checksum), group=group, flow_id=flow_id, tos=INNER_TOS,
                  inner=len(bytes(inner)))
    return name, "write " + text(fields), packet


def text(fields):
    return " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)


def read(name, packet, **fields):
    return name, "read " + text(fields), packet


def drop(reason, packet, name=None):
    return name or reason, "drop " + reason, packet


def other(name, packet):
    return name, "other", packet


def outer(v=V4, **more):
    return link() / network(v, **more)


U = dict(sport=49152, dport=4789, chksum=0)
G = dict(sport=49152, dport=6081, chksum=0)
VX = VXLAN(flags="Instance", vni=5001)
GV = dict(proto=0x6558, key_present=1, key=5001 << 8)
LENGTH = len(bytes(INNER))

PACKETS = [
    written(f"{kind} over {family}{' in a vlan' if vlan else ''}{' with a checksum' if checksum else ''}",
            kind, addresses, vni, vlan=vlan, checksum=checksum)
    for kind, checksums in (("vxlan", (False, True)), ("nvgre", (False,)), ("geneve", (False, True)))
    for family, addresses in (("ipv4", V4), ("ipv6", V6))
    for vlan in (None, 100)
    for checksum in checksums
    for vni in (5001,)
]
PACKETS += [
    written("the first vni", "vxlan", V4, 1),
    written("the last vni", "vxlan", V4, 0xFFFFFF),
    written("the last vsid", "nvgre", V6, 0xFFFFFF, flow_id=255),
    written("the last geneve vni", "geneve", V6, 0xFFFFFF),
    written("a fixed flow id", "nvgre", V4, 5001, flow_id=0),
    written("a group", "vxlan", V4, 5001, group=0xBEEF),
    written("a group of 0 with a checksum", "vxlan", V6, 5001, group=0, checksum=True),
    written("a fixed dscp", "vxlan", V4, 5001, dscp=46),
    written("a fixed dscp over ipv6", "geneve", V6, 5001, dscp=0),
    written("may be fragmented", "vxlan", V4, 5001, df=False, id=0xABCD),
    written("a ttl of 1", "nvgre", V4, 5001, ttl=1),
    written("an odd length", "vxlan", V4, 5001, inner=INNER / Raw(b"x"), checksum=True),
    written("entropy of all ones", "vxlan", V6, 5001, entropy=0xFFFFFFFF, checksum=True),
    written("nested", "vxlan", V4, 5001, inner=outer(tos=INNER_TOS) / UDP(**U) / VX / INNER),

    read("an identification, a service tag", Ether(**E) / Dot1AD(vlan=7, prio=3) / network(V4, id=99) / UDP(**U) / VX / INNER,
         kind="vxlan", vlan=7, vni=5001, sport=49152, tos=0, inner=LENGTH),
    read("ipv4 options", outer(options=[IPOption(b"\x94\x04\x00\x00")]) / UDP(**U) / VX / INNER, kind="vxlan", vni=5001, inner=LENGTH),
    read("padding", Ether(bytes(outer(len=42) / GRE(**GV) / Raw(b"\2" * 14)) + b"\x55" * 4), kind="nvgre", vni=5001, inner=14),
    read("the older vxlan port", outer() / UDP(sport=1, dport=8472, chksum=0) / VX / INNER, kind="vxlan", vni=5001, sport=1, inner=LENGTH),
    read("vxlan reserved bits", outer() / UDP(**U) / Raw(bytes.fromhex("7fffffff00138aff")) / INNER, kind="vxlan", vni=5002, inner=LENGTH),
    read("vxlan group and its flags", outer() / UDP(**U) / VXLAN(flags="Instance+G", gpflags="D+A", gpid=9, vni=3) / INNER,
         kind="vxlan", vni=3, group=9, learn=0, applied=1, inner=LENGTH),
    read("vni 0", outer() / UDP(**U) / VXLAN(flags="Instance", vni=0) / INNER, kind="vxlan", vni=0, inner=LENGTH),
    read("gre reserved bits", outer(proto=47) / Raw(bytes.fromhex("23f86558" "00138907")) / INNER, kind="nvgre", vni=5001, flow=7, inner=LENGTH),
    read("geneve reserved bits", outer() / UDP(**G) / Raw(bytes.fromhex("003f6558" "001389ff")) / INNER, kind="geneve", vni=5001, inner=LENGTH),
    read("geneve options", outer() / UDP(**G) / GENEVE(vni=5001, options=[
        GeneveOptions(classid=0x0102, type=1, data=b"12345678"), GeneveOptions(classid=0xFFFF, type=0x7F, data=b"")]) / INNER,
        kind="geneve", vni=5001, inner=LENGTH),
    read("geneve critical bit without a critical option", outer(V6) / UDP(sport=1, dport=6081) / GENEVE(vni=5001, critical=1, options=[
        GeneveOptions(classid=1, type=1, data=b"1234")]) / INNER, kind="geneve", vni=5001, inner=LENGTH),
    read("an inner frame of an ethernet header", outer() / UDP(**U) / VX / Raw(b"\2" * 14), kind="vxlan", vni=5001, inner=14),

    drop("outer-checksum", outer(chksum=0xBEEF) / UDP(**U) / VX / INNER),
    drop("outer-checksum", outer(chksum=0xBEEF) / GRE(**GV) / INNER, "outer checksum of gre"),
    drop("outer-fragment", fragment(outer(df=False) / UDP(**U) / VX / INNER / Raw(b"x" * 64), 80)[0], "first fragment"),
    drop("outer-fragment", fragment(outer(df=False) / UDP(**U) / VX / INNER / Raw(b"x" * 64), 80)[1], "later fragment"),
    drop("outer-fragment", fragment(outer(df=False) / GRE(**GV) / INNER / Raw(b"x" * 64), 80)[1], "fragment of gre"),
    drop("outer-fragment", outer(V6) / IPv6ExtHdrFragment(nh=17, m=1) / UDP(**U) / VX / INNER, "ipv6 fragment"),
    drop("outer-fragment", outer(V6) / IPv6ExtHdrFragment(nh=47, offset=9) / Raw(b"x" * 64), "later ipv6 fragment of gre"),
    drop("outer-extension", outer(V6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]) / UDP(**U) / VX / INNER),
    drop("outer-extension", outer(V6) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / GRE(**GV) / INNER, "hop by hop options before gre"),
    drop("outer-too-long", outer() / UDP(**G) / GENEVE(vni=5001, options=[
        GeneveOptions(classid=1, type=1, data=b"x" * 120)] * 2) / INNER),
    drop("tunnel-truncated", outer() / UDP(**U) / Raw(bytes(VX)[:7])),
    drop("tunnel-truncated", outer(proto=47) / Raw(bytes(GRE(**GV))[:6]), "truncated gre"),
    drop("tunnel-truncated", outer() / UDP(**G) / Raw(bytes.fromhex("0a006558" "00138900")) / Raw(b"x" * 39), "truncated geneve options"),
    drop("truncated-udp", outer(proto=17) / Raw(b"\xc0\0\x12\xb5")),
    drop("bad-udp-length", outer() / UDP(sport=1, dport=4789, len=7, chksum=0) / VX / INNER),
    drop("bad-udp-length", outer() / UDP(sport=1, dport=4789, len=9000, chksum=0) / VX / INNER, "udp length beyond the packet"),
    drop("ipv4-beyond-frame", outer(len=1400) / UDP(**U) / VX / INNER),
    drop("vxlan-flags", outer() / UDP(**U) / VXLAN(flags=0, vni=5001) / INNER),
    drop("vxlan-flags", outer(V6) / UDP(**U) / Raw(bytes.fromhex("f7ffffff00138900")) / INNER, "all vxlan flags but one"),
    drop("nvgre-flags", outer() / GRE(proto=0x6558) / INNER / Raw(b"xxxx"), "gre without a key"),
    drop("nvgre-flags", outer() / GRE(chksum_present=1, **GV) / INNER, "gre with a checksum"),
    drop("nvgre-flags", outer() / GRE(seqnum_present=1, **GV) / INNER, "gre with a sequence number"),
    drop("nvgre-flags", outer() / GRE(routing_present=1, proto=0x6558, key_present=1) / INNER, "gre with routing"),
    drop("nvgre-flags", outer() / GRE(version=1, **GV) / INNER, "gre of another version"),
    drop("tunnel-protocol", outer() / GRE(proto=0x0800, key_present=1, key=1) / ScapyIP() / ICMP(), "ip in gre"),
    drop("tunnel-protocol", outer() / UDP(**G) / GENEVE(proto=0x0800, vni=1) / ScapyIP() / ICMP(), "ip in geneve"),
    drop("geneve-version", outer() / UDP(**G) / GENEVE(version=1, vni=5001) / INNER),
    drop("geneve-control", outer() / UDP(**G) / GENEVE(oam=1, vni=5001) / INNER),
    drop("geneve-critical-option", outer() / UDP(**G) / GENEVE(vni=5001, critical=1, options=[
        GeneveOptions(classid=1, type=1, data=b"1234"), GeneveOptions(classid=1, type=0x80, data=b"1234")]) / INNER),
    drop("geneve-critical-option", outer() / UDP(**G) / GENEVE(vni=5001, options=[
        GeneveOptions(classid=1, type=0x80, data=b"")]) / INNER, "a critical option that the header does not announce"),
    drop("geneve-options", outer() / UDP(**G) / Raw(bytes.fromhex("02006558" "00138900" "00010102" "00000000")) / INNER,
         "an option longer than the options"),
    drop("inner-too-short", outer() / UDP(**U) / VX / Raw(b"x" * 13)),
    drop("inner-too-short", outer(V6) / GRE(**GV) / Raw(b"x" * 13), "too short in gre"),
    drop("inner-too-short", outer() / UDP(**G) / GENEVE(proto=0x6558, vni=1), "nothing in geneve"),

    other("udp to another port", outer() / UDP(sport=4789, dport=4790) / VX / INNER),
    other("a fragment to another port", fragment(outer(df=False) / UDP(sport=1, dport=9) / Raw(b"x" * 160), 80)[0]),
    other("tcp to a tunnel's port", outer() / TCP(dport=4789)),
    other("ping", outer() / ICMP() / Raw(b"x" * 56)),
    other("a fragment of a ping", fragment(outer(df=False) / ICMP() / Raw(b"x" * 160), 80)[1]),
    other("neighbours", Ether(**E, type=0x0806) / Raw(bytes.fromhex("0001080006040001" "020000000001c0000201000000000000c0000202"))),
    other("two tags", Ether(**E) / Dot1AD(vlan=7) / Dot1Q(vlan=8) / network(V4) / UDP(**U) / VX / INNER),
    other("another ethertype", Ether(**E, type=0x88B5) / Raw(b"x" * 60)),
]

for name, expected, packet in PACKETS:
    print(name, expected, bytes(packet).hex(), sep="\t")
