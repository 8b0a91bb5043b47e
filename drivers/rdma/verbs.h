// Owners of the objects of libibverbs and librdmacm.
#ifndef SLUICE_DRIVERS_RDMA_VERBS_H_
#define SLUICE_DRIVERS_RDMA_VERBS_H_

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <memory>

namespace sluice::rdma {

struct CloseDevice {
  void operator()(ibv_context* context) const { ibv_close_device(context); }
};
struct FreeDeviceList {
  void operator()(ibv_device** list) const { ibv_free_device_list(list); }
};
struct FreeDomain {
  void operator()(ibv_pd* domain) const { ibv_dealloc_pd(domain); }
};
struct Deregister {
  void operator()(ibv_mr* region) const { ibv_dereg_mr(region); }
};
struct DestroyChannel {
  void operator()(ibv_comp_channel* channel) const { ibv_destroy_comp_channel(channel); }
};
struct DestroyQueue {
  void operator()(ibv_cq* queue) const { ibv_destroy_cq(queue); }
};
struct DestroyPair {
  void operator()(ibv_qp* pair) const { ibv_destroy_qp(pair); }
};
struct DestroyEvents {
  void operator()(rdma_event_channel* channel) const { rdma_destroy_event_channel(channel); }
};
struct DestroyId {
  void operator()(rdma_cm_id* id) const { rdma_destroy_id(id); }
};

using UniqueContext = std::unique_ptr<ibv_context, CloseDevice>;
using UniqueDeviceList = std::unique_ptr<ibv_device*[], FreeDeviceList>;
using UniqueDomain = std::unique_ptr<ibv_pd, FreeDomain>;
using UniqueRegion = std::unique_ptr<ibv_mr, Deregister>;
using UniqueChannel = std::unique_ptr<ibv_comp_channel, DestroyChannel>;
using UniqueQueue = std::unique_ptr<ibv_cq, DestroyQueue>;
using UniquePair = std::unique_ptr<ibv_qp, DestroyPair>;
using UniqueEvents = std::unique_ptr<rdma_event_channel, DestroyEvents>;
using UniqueId = std::unique_ptr<rdma_cm_id, DestroyId>;

}  // namespace sluice::rdma

#endif  // SLUICE_DRIVERS_RDMA_VERBS_H_
