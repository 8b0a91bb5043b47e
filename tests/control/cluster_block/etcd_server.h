// A real etcd for tests: its processes, which end with the test program whatever happens.
#ifndef SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_ETCD_SERVER_H_
#define SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_ETCD_SERVER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/cluster_block/etcd_cluster_block.h"
#include "tests/control/cluster_block/harness.h"

namespace sluice {

// Ports on loopback that nobody uses now.
std::vector<uint16_t> free_test_ports(size_t count);

class EtcdServer {
 public:
  struct Options {
    size_t members = 1;
    std::vector<std::string> arguments;  // further ones, of each member
    std::string scheme = "http";         // of clients
  };
  EtcdServer() : EtcdServer(Options()) {}
  // Started, and serving.
  explicit EtcdServer(Options options);
  ~EtcdServer();
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  void start(size_t member = 0);
  // SIGKILL; its data stay.
  void kill(size_t member = 0);
  void signal(int number, size_t member = 0);
  // Of a member that was killed: it starts as a new one.
  void erase_data(size_t member = 0);

  uint16_t port(size_t member = 0) const { return members_[member].client_port; }
  std::string address(size_t member = 0) const;
  std::vector<std::string> addresses() const;
  std::string url(const std::string& prefix) const;
  EtcdClusterBlockOptions options(const std::string& prefix) const;
  // Fails the test, and is null, when it cannot be opened.
  std::unique_ptr<ClusterBlock> open(const std::string& prefix) const;
  // Forgets what changed up to the revision.
  void compact(Revision revision) const;
  // What etcdctl prints against the first member; fails the test unless it succeeds.
  std::string control(const std::string& arguments) const;
  std::string log(size_t member = 0) const;
  // Its own number of the cluster.
  uint64_t cluster_id() const;
  // All members.
  void wait_until_serving() const;

 private:
  struct Member {
    uint16_t client_port = 0;
    uint16_t peer_port = 0;
    pid_t process = 0;
  };
  std::string file(const std::string& name) const { return folder_ + "/" + name; }

  const Options options_;
  std::string folder_;
  std::vector<Member> members_;
};

// One for all tests of the program that harm it in no way.
EtcdServer& shared_etcd();
// A prefix that no other test has, as long as one may be.
std::string new_etcd_prefix();

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_ETCD_SERVER_H_
