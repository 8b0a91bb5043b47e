// Drops packets at random on their way, for tc (cls_bpf): one in 2^32 / DROP_BELOW.
#include <linux/bpf.h>

static unsigned (*get_random)(void) = (void*)BPF_FUNC_get_prandom_u32;

__attribute__((section("classifier"), used)) int drop(struct __sk_buff* packet) {
  (void)packet;
  return get_random() < DROP_BELOW ? 2 /* TC_ACT_SHOT */ : 0 /* TC_ACT_OK */;
}

char license_text[] __attribute__((section("license"), used)) = "GPL";
