// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//
// The XDP program of an afxdp port: hand each frame to the AF_XDP socket of the queue that it came in on.
//
// What no socket takes (no entry for the queue: the daemon is down, or drives other queues only) meets the verdict
// in `unclaimed`: XDP_PASS leaves it to the host's kernel, XDP_DROP keeps a closed device closed. The loader sets it
// before the program is verified, so it is a constant there.
//
// Self-contained on purpose: the few kernel definitions needed are stable ABI, and no header has to be installed.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define BPF_MAP_TYPE_XSKMAP 17
#define XDP_PASS 2

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

const volatile u32 unclaimed = XDP_PASS;

SEC("xdp.frags")
int vswitch_xsk(struct xdp_md *frame)
{
	return bpf_redirect_map(&xdp_sockets, frame->rx_queue_index, unclaimed);
}

char license_of_program[] SEC("license") = "Dual BSD/GPL";
