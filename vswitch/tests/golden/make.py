#!/usr/bin/env python3
"""Makes frames.txt: frames built by scapy, each with the text that our notation has for it.

The tests read frames.txt only and need no scapy. To make it again after adding a frame:

    python3 -m venv build/scapy && build/scapy/bin/pip install scapy
    build/scapy/bin/python vswitch/tests/golden/make.py > vswitch/tests/golden/frames.txt

Every line is: name, tab, notation, tab, bytes in hexadecimal.
"""
from scapy.all import (
    AH, ARP, Dot1AD, Dot1Q, Ether, ICMP, IP as ScapyIP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest,
    ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig, IPOption, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop, PadN, Padding, Raw, SCTP, TCP, UDP,
)

SRC, DST = "02:00:00:00:00:01", "02:00:00:00:00:02"
E = Ether(src=SRC, dst=DST)
V4 = dict(src="10.0.0.1", dst="10.0.0.2")
V6 = dict(src="fd00::1", dst="fd00::2")
# Scapy leaves ports at its own defaults (20, 80, 53); ours are given on both sides.
T = dict(sport=1024, dport=80, window=65535)
U = dict(sport=1024, dport=9)


def IP(**fields):
    """Scapy's identification is 1 by default, ours is 0."""
    return ScapyIP(**{"id": 0, **fields})


def pattern(length):
    return Raw(bytes(index & 0xFF for index in range(length)))


FRAMES = [
    ("bare ethernet", 'eth(type=0x88b5) payload(len=46)', Ether(src=SRC, dst=DST, type=0x88B5) / pattern(46)),
    ("lldp ethertype", 'eth(type=lldp) payload(hex=0000)', Ether(src=SRC, dst=DST, type=0x88CC) / Raw(b"\0\0")),
    ("broadcast", 'eth(dst=ff:ff:ff:ff:ff:ff) ipv4(dst=255.255.255.255) udp',
     Ether(src=SRC, dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.1", dst="255.255.255.255") / UDP(**U)),
    ("arp request", 'eth(dst=ff:ff:ff:ff:ff:ff) arp',
     Ether(src=SRC, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=SRC, psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2")),
    ("arp reply", 'eth arp(op=reply,spa=10.0.0.7,tpa=10.0.0.8)',
     E / ARP(op=2, hwsrc=SRC, psrc="10.0.0.7", hwdst=DST, pdst="10.0.0.8")),
    ("arp padded", 'eth arp(op=reply) pad(to=60)',
     E / ARP(op=2, hwsrc=SRC, psrc="10.0.0.1", hwdst=DST, pdst="10.0.0.2") / Padding(b"\0" * 18)),
    ("arp in a vlan", 'eth vlan(id=7) arp(sha=02:00:00:00:00:99)',
     E / Dot1Q(vlan=7) / ARP(op=1, hwsrc="02:00:00:00:00:99", psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2")),
    ("vlan", 'eth vlan(id=10) ipv4 udp', E / Dot1Q(vlan=10) / IP(**V4) / UDP(**U)),
    ("vlan priority and dei", 'eth vlan(id=4094,pcp=5,dei) ipv4 udp',
     E / Dot1Q(vlan=4094, prio=5, dei=1) / IP(**V4) / UDP(**U)),
    ("priority tag", 'eth vlan(id=0,pcp=7) ipv6 tcp', E / Dot1Q(vlan=0, prio=7) / IPv6(**V6) / TCP(**T)),
    ("qinq 802.1ad", 'eth vlan(id=100) vlan(id=200) ipv4 tcp', E / Dot1AD(vlan=100) / Dot1Q(vlan=200) / IP(**V4) / TCP(**T)),
    ("qinq 802.1q twice", 'eth vlan(id=100,tpid=0x8100) vlan(id=200) ipv6 udp',
     E / Dot1Q(vlan=100) / Dot1Q(vlan=200) / IPv6(**V6) / UDP(**U)),
    ("single service tag", 'eth vlan(id=100,tpid=0x88a8) ipv4 udp', E / Dot1AD(vlan=100) / IP(**V4) / UDP(**U)),
    ("ipv4 without a transport", 'eth ipv4(protocol=253) payload(len=5)', E / IP(proto=253, **V4) / pattern(5)),
    ("ipv4 fields", 'eth ipv4(tos=0xb8,id=4660,df,ttl=3,protocol=gre) payload(len=8)',
     E / IP(tos=0xB8, id=4660, flags="DF", ttl=3, proto=47, **V4) / pattern(8)),
    ("ipv4 options", 'eth ipv4(options=94040000) udp payload(text="router alert")',
     E / IP(options=[IPOption(b"\x94\x04\x00\x00")], **V4) / UDP(**U) / Raw(b"router alert")),
    ("ipv4 first fragment", 'eth ipv4(id=9,mf,protocol=253) payload(len=16)',
     E / IP(id=9, flags="MF", proto=253, **V4) / pattern(16)),
    ("ipv4 later fragment", 'eth ipv4(id=9,fragment_offset=2,protocol=udp) payload(len=7)',
     E / IP(id=9, frag=2, proto=17, **V4) / pattern(7)),
    ("ipv4 in ipv4", 'eth ipv4 ipv4(src=192.168.0.1,dst=192.168.0.2) udp',
     E / IP(**V4) / IP(src="192.168.0.1", dst="192.168.0.2") / UDP(**U)),
    ("tcp syn", 'eth ipv4 tcp', E / IP(**V4) / TCP(**T)),
    ("tcp with options", 'eth ipv4 tcp(seq=1000,options=020405b40402010303070101)',
     E / IP(**V4) / TCP(seq=1000, options=[("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7), ("NOP", None), ("NOP", None)], **T)),
    ("tcp odd payload", 'eth ipv4 tcp(flags=psh+ack,ack=77,seq=4294967295) payload(text="odd")',
     E / IP(**V4) / TCP(flags="PA", ack=77, seq=0xFFFFFFFF, **T) / Raw(b"odd")),
    ("tcp reset and urgent", 'eth ipv4 tcp(flags=rst+urg+ece+cwr,urgent=5)',
     E / IP(**V4) / TCP(flags="RUEC", urgptr=5, **T)),
    ("tcp over ipv6", 'eth ipv6(traffic_class=0x2e,flow_label=0xabcde,hop_limit=255) tcp(flags=ack) payload(len=1000)',
     E / IPv6(tc=0x2E, fl=0xABCDE, hlim=255, **V6) / TCP(flags="A", **T) / pattern(1000)),
    ("udp", 'eth ipv4 udp payload(len=64)', E / IP(**V4) / UDP(**U) / pattern(64)),
    ("udp without checksum", 'eth ipv4 udp(checksum=0) payload(len=3)', E / IP(**V4) / UDP(chksum=0, **U) / pattern(3)),
    ("udp over ipv6", 'eth ipv6 udp(sport=5353,dport=5353) payload(text="hello")',
     E / IPv6(**V6) / UDP(sport=5353, dport=5353) / Raw(b"hello")),
    ("udp of 1500 bytes", 'eth ipv4 udp payload(len=1472)', E / IP(**V4) / UDP(**U) / pattern(1472)),
    ("icmp echo request", 'eth ipv4 icmp(id=4660,seq=2) payload(len=56)',
     E / IP(**V4) / ICMP(id=4660, seq=2) / pattern(56)),
    ("icmp echo reply", 'eth ipv4 icmp(type=echo-reply,id=4660,seq=2) payload(len=9)',
     E / IP(**V4) / ICMP(type=0, id=4660, seq=2) / pattern(9)),
    ("icmp fragmentation needed", 'eth ipv4 icmp(type=unreachable,code=4,mtu=1400) ipv4(src=10.0.0.2,dst=10.0.0.1) udp',
     E / IP(**V4) / ICMP(type=3, code=4, nexthopmtu=1400) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(**U)),
    ("icmpv6 echo request", 'eth ipv6 icmpv6(id=1,seq=3) payload(len=32)',
     E / IPv6(**V6) / ICMPv6EchoRequest(id=1, seq=3, data=bytes(range(32)))),
    ("icmpv6 echo reply", 'eth ipv6 icmpv6(type=echo-reply,id=1,seq=3)', E / IPv6(**V6) / ICMPv6EchoReply(id=1, seq=3)),
    ("neighbor solicitation",
     'eth(dst=33:33:ff:00:00:02) ipv6(hop_limit=255,dst=ff02::1:ff00:2) icmpv6(type=neighbor-solicitation,target=fd00::2,sll=02:00:00:00:00:01)',
     Ether(src=SRC, dst="33:33:ff:00:00:02") / IPv6(src="fd00::1", dst="ff02::1:ff00:2", hlim=255)
     / ICMPv6ND_NS(tgt="fd00::2") / ICMPv6NDOptSrcLLAddr(lladdr=SRC)),
    ("neighbor advertisement",
     'eth ipv6(hop_limit=255) icmpv6(type=neighbor-advertisement,id=0x6000,target=fd00::1,tll=02:00:00:00:00:01)',
     E / IPv6(hlim=255, **V6) / ICMPv6ND_NA(R=0, S=1, O=1, tgt="fd00::1") / ICMPv6NDOptDstLLAddr(lladdr=SRC)),
    ("router solicitation", 'eth(dst=33:33:00:00:00:02) ipv6(hop_limit=255,dst=ff02::2) icmpv6(type=router-solicitation)',
     Ether(src=SRC, dst="33:33:00:00:00:02") / IPv6(src="fd00::1", dst="ff02::2", hlim=255) / ICMPv6ND_RS()),
    ("packet too big", 'eth ipv6 icmpv6(type=packet-too-big,mtu=1280) ipv6(src=fd00::2,dst=fd00::1) udp',
     E / IPv6(**V6) / ICMPv6PacketTooBig(mtu=1280) / IPv6(src="fd00::2", dst="fd00::1") / UDP(**U)),
    ("icmpv6 unreachable", 'eth ipv6 icmpv6(type=unreachable,code=4)', E / IPv6(**V6) / ICMPv6DestUnreach(code=4)),
    ("hop-by-hop and destination options", 'eth ipv6 hopbyhop destination udp',
     E / IPv6(**V6) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")])
     / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")]) / UDP(**U)),
    ("ipv6 first fragment", 'eth ipv6 fragment(next_header=253,id=7,more) payload(len=8)',
     E / IPv6(**V6) / IPv6ExtHdrFragment(nh=253, id=7, m=1) / pattern(8)),
    ("ipv6 later fragment", 'eth ipv6 fragment(next_header=tcp,id=7,offset=181) payload(len=30)',
     E / IPv6(**V6) / IPv6ExtHdrFragment(nh=6, id=7, offset=181) / pattern(30)),
    ("authentication header", 'eth ipv4 auth(spi=9,seq=10,icv=0102030405060708090a0b0c) udp(checksum=0)',
     E / IP(**V4) / AH(nh=17, payloadlen=4, spi=9, seq=10, icv=bytes(range(1, 13))) / UDP(chksum=0, **U)),
    ("ipv6 without next header", 'eth ipv6', E / IPv6(nh=59, **V6)),
    ("sctp", 'eth ipv4 sctp(sport=5000,dport=5001,tag=0xdeadbeef) payload(len=20)',
     E / IP(**V4) / SCTP(sport=5000, dport=5001, tag=0xDEADBEEF) / pattern(20)),
    ("sctp over ipv6", 'eth ipv6 sctp(sport=5000,dport=5001)', E / IPv6(**V6) / SCTP(sport=5000, dport=5001)),
    ("wrong checksums", 'eth ipv4(checksum=0xbeef) tcp(checksum=0x1234)', E / IP(chksum=0xBEEF, **V4) / TCP(chksum=0x1234, **T)),
    ("wrong lengths", 'eth ipv4(total_length=5,header_length=15) udp(length=7,checksum=0)',
     E / IP(len=5, ihl=15, **V4) / UDP(len=7, chksum=0, **U)),
    ("wrong ipv6 length and version", 'eth ipv6(version=5,payload_length=9000) udp(checksum=0)',
     E / IPv6(version=5, plen=9000, **V6) / UDP(chksum=0, **U)),
]

for name, text, frame in FRAMES:
    print(name, text, bytes(frame).hex(), sep="\t")
