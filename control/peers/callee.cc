#include "control/peers/callee.h"

#include <utility>

#include "base/defect.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr char kClusterKey[] = "sluice-cluster";
constexpr char kNodeKey[] = "sluice-node";

class Naming final : public grpc::experimental::Interceptor {
 public:
  explicit Naming(const Callee& callee) : callee_(callee) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      auto* metadata = methods->GetSendInitialMetadata();
      metadata->emplace(kClusterKey, callee_.cluster);
      metadata->emplace(kNodeKey, callee_.node);
    }
    methods->Proceed();
  }

 private:
  const Callee& callee_;
};

// Outlives the interceptors that it makes: both belong to the channel's calls.
class Factory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit Factory(Callee callee) : callee_(std::move(callee)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new Naming(callee_);
  }

 private:
  const Callee callee_;
};

std::string value_of(const grpc::ServerContext& call, const char* key) {
  const auto found = call.client_metadata().find(key);
  if (found == call.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> naming(
    const Callee& callee) {
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> factories;
  if (!callee.node.empty()) factories.push_back(std::make_unique<Factory>(callee));
  return factories;
}

Callee callee_of(const grpc::ServerContext& call) {
  return {value_of(call, kClusterKey), value_of(call, kNodeKey)};
}

absl::Status check_callee(const Callee& meant, std::string_view cluster, std::string_view self) {
  if (meant.node.empty() || defect(Defect::kAnyCalleeAnswers)) return absl::OkStatus();
  if (meant.cluster != cluster) {
    return unavailable("at its address is node {} of cluster {}, not one of cluster {}", self,
                       cluster, meant.cluster);
  }
  if (meant.node != self) return unavailable("at its address is node {} now", self);
  return absl::OkStatus();
}

}  // namespace sluice
