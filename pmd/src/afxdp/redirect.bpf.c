// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//
// The XDP program of an afxdp port: hand each frame to the AF_XDP socket of the queue that it came in on.
//
// What no socket takes (no entry for the queue: the daemon is down, or drives other queues only) meets the verdict
// in `unclaimed`: XDP_PASS leaves it to the host's kernel, XDP_DROP keeps a closed device closed. The loader sets it
// before the program is verified, so it is a constant there.
//
// A device that is shared with the host's kernel (`selective`, a constant, too) gives us only the frames that
// `taken` lists, by VLAN, address that they are sent to, protocol, and UDP port; all else is the kernel's. GRE has no
// ports, and the host may have tunnels of its own: of it only Ethernet frames with a key are taken (RFC 7637), and by
// the address that they come from, too. A fragment shows no port unless it is the first. Options of IPv4 are stepped
// over; behind extension headers of IPv6 no tunnel begins.
//
// Self-contained on purpose: the few kernel definitions needed are stable ABI, and no header has to be installed.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_XSKMAP 17
#define XDP_PASS 2

// As they stand in a frame, on a little-endian machine or not.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BE16(x) ((u16)((x) << 8 | (x) >> 8))
#else
#define BE16(x) ((u16)(x))
#endif
#define UDP 17
#define GRE 47

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	u32 *key;
	u32 *value;
	int (*max_entries)[64];
} xdp_sockets SEC(".maps");

// What a frame is taken by; numbers as in the frame, IPv4 addresses as mapped IPv6 (RFC 4291, 2.5.5.2).
struct taken_key {
	u8 address[16];
	u8 source[16];
	u16 vlan;
	u16 port;
	u32 protocol;
};

struct {
	int (*type)[BPF_MAP_TYPE_HASH];
	struct taken_key *key;
	u32 *value;
	int (*max_entries)[1024];
} taken SEC(".maps");

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

const volatile u32 unclaimed = XDP_PASS;
const volatile u32 selective = 0;

static __attribute__((always_inline)) int is_taken(struct xdp_md *frame)
{
	u8 *at = (u8 *)(u64)frame->data, *end = (u8 *)(u64)frame->data_end;
	struct taken_key key = {};
	u8 source[16] = {};
	u32 header;

	if (at + 18 > end)
		return 0;
	u16 type = *(u16 *)(at + 12);
	at += 14;
	if (type == BE16(0x8100)) {
		key.vlan = *(u16 *)at & BE16(0x0fff);
		type = *(u16 *)(at + 2);
		at += 4;
	}
	if (type == BE16(0x0800)) {
		if (at + 20 > end)
			return 0;
		if (*(u16 *)(at + 6) & BE16(0x1fff))
			return 0;
		header = (at[0] & 15) * 4;
		if (header < 20)
			return 0;
		key.protocol = at[9];
		key.address[10] = key.address[11] = source[10] = source[11] = 0xff;
		__builtin_memcpy(key.address + 12, at + 16, 4);
		__builtin_memcpy(source + 12, at + 12, 4);
	} else if (type == BE16(0x86dd)) {
		if (at + 40 > end)
			return 0;
		header = 40;
		key.protocol = at[6];
		__builtin_memcpy(key.address, at + 24, 16);
		__builtin_memcpy(source, at + 8, 16);
	} else {
		return 0;
	}
	if (key.protocol == UDP) {
		at += header;
		if (at + 8 > end)
			return 0;
		key.port = *(u16 *)(at + 2);
	} else if (key.protocol == GRE) {
		at += header;
		if (at + 4 > end)
			return 0;
		if (!(*(u16 *)at & BE16(0x2000)) || *(u16 *)(at + 2) != BE16(0x6558))
			return 0;
		__builtin_memcpy(key.source, source, 16);
	}
	return bpf_map_lookup_elem(&taken, &key) != 0;
}

SEC("xdp.frags")
int vswitch_xsk(struct xdp_md *frame)
{
	if (selective && !is_taken(frame))
		return XDP_PASS;
	return bpf_redirect_map(&xdp_sockets, frame->rx_queue_index, unclaimed);
}

char license_of_program[] SEC("license") = "Dual BSD/GPL";
