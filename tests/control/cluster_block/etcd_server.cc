#include "tests/control/cluster_block/etcd_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <sstream>

#include "base/clock.h"
#include "base/file.h"
#include "control/proto/etcd.grpc.pb.h"

namespace sluice {
namespace {

constexpr int64_t kStartNs = 30'000'000'000;
constexpr uint64_t kRoomBytes = uint64_t{1} << 30;

// On tmpfs where it has room: the tests wait for etcd's syncs otherwise.
std::string parent_of_data() {
  std::error_code failed;
  const auto room = std::filesystem::space("/dev/shm", failed);
  if (!failed && room.available > kRoomBytes && ::access("/dev/shm", W_OK) == 0) return "/dev/shm";
  return std::filesystem::temp_directory_path().string();
}

pid_t spawn(const std::vector<std::string>& arguments, const std::string& log) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(126);
  const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

bool is_listening(uint16_t port) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace

std::vector<uint16_t> free_test_ports(size_t count) {
  std::vector<UniqueFd> sockets;  // all open until the last is found, so that they differ
  std::vector<uint16_t> ports;
  for (size_t i = 0; i < count; ++i) {
    sockets.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(sockets[i].get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(sockets[i].get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    ports.push_back(ntohs(address.sin_port));
  }
  return ports;
}

EtcdServer::EtcdServer(Options options) : options_(std::move(options)) {
  std::string pattern = parent_of_data() + "/sluice-etcd-XXXXXX";
  folder_ = ::mkdtemp(pattern.data());
  const auto ports = free_test_ports(2 * options_.members);
  for (size_t i = 0; i < options_.members; ++i) {
    members_.push_back({ports[2 * i], ports[2 * i + 1], 0});
  }
  for (size_t i = 0; i < members_.size(); ++i) start(i);
  wait_until_serving();
}

EtcdServer::~EtcdServer() {
  for (size_t i = 0; i < members_.size(); ++i) kill(i);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void EtcdServer::start(size_t member) {
  std::string cluster;
  for (size_t i = 0; i < members_.size(); ++i) {
    cluster +=
        fmt::format("{}m{}=http://127.0.0.1:{}", i == 0 ? "" : ",", i, members_[i].peer_port);
  }
  Member& one = members_[member];
  const std::string clients = fmt::format("{}://127.0.0.1:{}", options_.scheme, one.client_port);
  const std::string peers = fmt::format("http://127.0.0.1:{}", one.peer_port);
  std::vector<std::string> arguments = {"etcd",
                                        "--name",
                                        fmt::format("m{}", member),
                                        "--data-dir",
                                        file(fmt::format("m{}", member)),
                                        "--listen-client-urls",
                                        clients,
                                        "--advertise-client-urls",
                                        clients,
                                        "--listen-peer-urls",
                                        peers,
                                        "--initial-advertise-peer-urls",
                                        peers,
                                        "--initial-cluster",
                                        cluster};
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  one.process = spawn(arguments, file(fmt::format("m{}.log", member)));
}

void EtcdServer::wait_until_serving() const {
  const int64_t deadline = system_clock().monotonic_ns() + kStartNs;
  for (size_t i = 0; i < members_.size(); ++i) {
    while (!is_listening(members_[i].client_port)) {
      const bool is_there = ::waitpid(members_[i].process, nullptr, WNOHANG) == 0;
      ASSERT_TRUE(is_there) << "etcd (Debian's etcd-server) does not run: " << log(i);
      ASSERT_LT(system_clock().monotonic_ns(), deadline) << "etcd does not listen: " << log(i);
      system_clock().sleep_ns(10'000'000);
    }
  }
}

void EtcdServer::kill(size_t member) {
  pid_t& process = members_[member].process;
  if (process <= 0) return;
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  process = 0;
}

void EtcdServer::signal(int number, size_t member) { ::kill(members_[member].process, number); }

void EtcdServer::erase_data(size_t member) {
  std::filesystem::remove_all(file(fmt::format("m{}", member)));
}

std::string EtcdServer::address(size_t member) const {
  return fmt::format("127.0.0.1:{}", members_[member].client_port);
}

std::vector<std::string> EtcdServer::addresses() const {
  std::vector<std::string> all;
  for (size_t i = 0; i < members_.size(); ++i) all.push_back(address(i));
  return all;
}

std::string EtcdServer::url(const std::string& prefix) const {
  return fmt::format("etcd://{}/{}", fmt::join(addresses(), ","), prefix);
}

EtcdClusterBlockOptions EtcdServer::options(const std::string& prefix) const {
  EtcdClusterBlockOptions made;
  made.endpoints = addresses();
  made.prefix = prefix;
  return made;
}

std::unique_ptr<ClusterBlock> EtcdServer::open(const std::string& prefix) const {
  auto block = open_etcd_cluster_block(options(prefix));
  EXPECT_TRUE(block.ok()) << block.status() << log();
  return block.ok() ? *std::move(block) : nullptr;
}

void EtcdServer::compact(Revision revision) const {
  const auto kv =
      etcdserverpb::KV::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  etcdserverpb::CompactionRequest request;
  request.set_revision(static_cast<int64_t>(revision));
  request.set_physical(true);
  etcdserverpb::CompactionResponse response;
  const grpc::Status status = kv->Compact(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

uint64_t EtcdServer::cluster_id() const {
  const auto kv =
      etcdserverpb::KV::NewStub(grpc::CreateChannel(address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  etcdserverpb::RangeRequest request;
  request.set_key("any");
  etcdserverpb::RangeResponse response;
  const grpc::Status status = kv->Range(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.header().cluster_id();
}

std::string EtcdServer::control(const std::string& arguments) const {
  const std::string output = file("etcdctl.log");
  const std::string command =
      fmt::format("ETCDCTL_API=3 etcdctl --endpoints {} {} >{} 2>&1", address(), arguments, output);
  const int code = std::system(command.c_str());
  const std::string text = read_file(output, size_t{1} << 20).value_or("");
  EXPECT_EQ(code, 0) << "etcdctl (Debian's etcd-client) " << arguments << ": " << text;
  return text;
}

std::string EtcdServer::log(size_t member) const {
  std::ifstream file_of_log(file(fmt::format("m{}.log", member)));
  std::stringstream text;
  text << file_of_log.rdbuf();
  const std::string all = text.str();
  return all.substr(all.size() - std::min<size_t>(all.size(), 2000));
}

EtcdServer& shared_etcd() {
  static EtcdServer server;
  return server;
}

std::string new_etcd_prefix() {
  static std::atomic<int> number{0};
  std::string prefix = fmt::format("tests/{}/", ++number);
  prefix.resize(kMaxPrefixBytes, 'p');
  return prefix;
}

}  // namespace sluice
