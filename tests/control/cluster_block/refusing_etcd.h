// An overloaded etcd, for tests: refuses requests as etcd does then, and hands what it does not
// refuse on to a real one.
#ifndef SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_REFUSING_ETCD_H_
#define SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_REFUSING_ETCD_H_

#include <atomic>
#include <memory>
#include <string>

#include "control/proto/etcd.grpc.pb.h"

namespace sluice {

// Thread-safe.
class RefusingEtcd {
 public:
  // In front of the etcd that serves at the address.
  explicit RefusingEtcd(const std::string& etcd);
  ~RefusingEtcd();
  RefusingEtcd(const RefusingEtcd&) = delete;
  RefusingEtcd& operator=(const RefusingEtcd&) = delete;

  const std::string& address() const { return address_; }
  // The next transactions and grants of leases.
  void refuse_next(int count) { left_ = count; }
  int refused() const { return refused_; }

 private:
  class Kv;
  class Leases;
  class Alarms;
  grpc::Status pass();

  std::atomic<int> left_{0};
  std::atomic<int> refused_{0};
  std::string address_;
  std::unique_ptr<Kv> kv_;
  std::unique_ptr<Leases> leases_;
  std::unique_ptr<Alarms> alarms_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_REFUSING_ETCD_H_
