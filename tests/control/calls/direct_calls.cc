#include "tests/control/calls/direct_calls.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <utility>

#include "base/executor.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/service/call_list.h"
#include "control/service/guarded_services.h"
#include "tests/control/calls/direct_call.h"
#include "tests/control/calls/direct_server.h"

namespace sluice {

namespace {

constexpr int64_t kLongestMs = int64_t{1000} * 3600 * 24 * 365;

int64_t left_ms_of(const grpc::ClientContext& context) {
  using std::chrono::milliseconds;
  const auto now = std::chrono::system_clock::now();
  const auto deadline = context.deadline();
  if (deadline - now > milliseconds(kLongestMs)) return kLongestMs;
  return std::max<int64_t>(std::chrono::duration_cast<milliseconds>(deadline - now).count(), 0);
}

class Run final : public Executor::Work {
 public:
  explicit Run(std::function<void()> body) : body_(std::move(body)) {}
  void run() override { body_(); }

 private:
  const std::function<void()> body_;
};

// A method of the list of calls.
template <typename Service, typename Request, typename Reply>
struct Method {
  const char* name;
  Admission::Kind kind;
  absl::Status (Service::*handler)(IncomingCall&, const Request&, Reply*);
};

Guarded<PeerService>& guarded_of(const NodeServices& services, const PeerService*) {
  return services.peer;
}
Guarded<ServingService>& guarded_of(const NodeServices& services, const ServingService*) {
  return services.serving;
}

// The way from one caller to one node, and back.
struct Route {
  DirectNetwork& network;
  const std::string from;
  const std::string to;  // an address

  template <typename Service, typename Request, typename Reply>
  absl::Status have_answered(const NodeServices& services,
                             const Method<Service, Request, Reply>& method, DirectCall& call,
                             const Request& request, Reply* reply) const {
    call.begin_work();
    Guarded<Service>& guarded = guarded_of(services, static_cast<const Service*>(nullptr));
    return guarded.answer(method.name, method.kind, method.handler, call, request, reply);
  }
  void ask(const char* method, const std::shared_ptr<DirectCall>& call,
           const google::protobuf::Message& request, DirectNetwork::Work work) const {
    network.carry(
        {from, to, DirectMessage::Kind::kRequest, method, call, &request},
        [&net = network, address = to, call, work = std::move(work)] {
          if (net.post(address, call, work)) return;
          call->answer({grpc::StatusCode::UNAVAILABLE, "is not running (connection refused)"});
        });
  }
};
using RoutePtr = std::shared_ptr<const Route>;

template <typename Page>
class DirectSink final : public PageSink<Page> {
 public:
  DirectSink(RoutePtr route, const char* method, std::shared_ptr<DirectCall> call,
             std::shared_ptr<DirectPages<Page>> pages)
      : route_(std::move(route)),
        method_(method),
        call_(std::move(call)),
        pages_(std::move(pages)) {}
  absl::Status write(const Page& page) override {
    if (!pages_->reserve(kReaderStallMs)) {
      if (call_->ended()) return cancelled("the reader went away");
      call_->give_up({grpc::StatusCode::CANCELLED, "CANCELLED"});
      return cancelled("the reader took nothing for {} s", kReaderStallMs / 1000);
    }
    route_->network.carry({route_->to, route_->from, DirectMessage::Kind::kPage, method_, call_},
                          [pages = pages_, page]() mutable { pages->deliver(std::move(page)); });
    return absl::OkStatus();
  }

 private:
  const RoutePtr route_;
  const char* const method_;
  const std::shared_ptr<DirectCall> call_;
  const std::shared_ptr<DirectPages<Page>> pages_;
};

// The calls of one link that can be cancelled, by context.
class OpenCalls {
 public:
  void add(grpc::ClientContext* context, const std::shared_ptr<DirectCall>& call) {
    const std::lock_guard lock(mutex_);
    calls_[context] = call;
  }
  void remove(grpc::ClientContext* context) {
    const std::lock_guard lock(mutex_);
    calls_.erase(context);
  }
  std::shared_ptr<DirectCall> find(grpc::ClientContext* context) {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(context);
    return found == calls_.end() ? nullptr : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<grpc::ClientContext*, std::shared_ptr<DirectCall>> calls_;
};

// The asynchronous calls of one dialer, each until its callback has returned.
class AsyncCalls {
 public:
  explicit AsyncCalls(std::unique_ptr<Executor> executor) : executor_(std::move(executor)) {
    executor_->post(std::make_shared<Run>([] {}));  // its thread is the caller's process's
  }
  // Ends those that have not ended.
  ~AsyncCalls() {
    std::unique_lock lock(mutex_);
    while (!calls_.empty()) {
      std::vector<std::shared_ptr<DirectCall>> open;
      for (const auto& [number, call] : calls_) open.push_back(call);
      lock.unlock();
      for (const auto& call : open) call->give_up({grpc::StatusCode::CANCELLED, "CANCELLED"});
      lock.lock();
      changed_.wait(lock, [this] { return calls_.empty(); });
    }
  }

  void begin(const std::shared_ptr<DirectCall>& call, std::function<void()> forget,
             std::function<void(grpc::Status)> done) {
    uint64_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      number = ++last_;
      calls_[number] = call;
    }
    call->on_end([this, number, weak = std::weak_ptr(call), forget = std::move(forget),
                  done = std::move(done)] {
      forget();
      executor_->post(std::make_shared<Run>([this, number, call = weak.lock(), done] {
        done(call->wait());
        const std::lock_guard lock(mutex_);
        calls_.erase(number);
        changed_.notify_all();
      }));
    });
    const int64_t end_ns = executor_->clock().monotonic_ns() + call->left_ms() * 1'000'000;
    executor_->post_at(end_ns, std::make_shared<Run>([weak = std::weak_ptr(call)] {
                         if (const auto late = weak.lock()) late->give_up_late();
                       }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, std::shared_ptr<DirectCall>> calls_;
  uint64_t last_ = 0;
  const std::unique_ptr<Executor> executor_;
};

// What the stubs of one link share.
class Caller {
 public:
  Caller(DirectNetwork& network, AsyncCalls& async, Callee callee, const std::string& from,
         const std::string& to)
      : async_(async),
        callee_(std::move(callee)),
        route_(std::make_shared<const Route>(Route{network, from, to})) {}

  const Route& route() const { return *route_; }

  template <typename Service, typename Request, typename Reply>
  grpc::Status call(const Method<Service, Request, Reply>& method, grpc::ClientContext* context,
                    const Request& request, Reply* reply) {
    const auto call = make_call(left_ms_of(*context));
    open_.add(context, call);
    begin(method, call, request, reply);
    const grpc::Status status = call->wait();
    open_.remove(context);
    return status;
  }

  template <typename Service, typename Request, typename Reply>
  void call_async(const Method<Service, Request, Reply>& method, grpc::ClientContext* context,
                  const Request* request, Reply* reply, std::function<void(grpc::Status)> done) {
    const auto call = make_call(left_ms_of(*context));
    open_.add(context, call);
    async_.begin(
        call, [this, context] { open_.remove(context); }, std::move(done));
    begin(method, call, *request, reply);
  }

  template <typename Page>
  struct Streaming {
    std::shared_ptr<DirectCall> call;
    std::shared_ptr<DirectPages<Page>> pages;
  };
  template <typename Service, typename Request, typename Page>
  Streaming<Page> stream(const Method<Service, Request, PageSink<Page>>& method,
                         const Request& request, int64_t timeout_ms) {
    Streaming<Page> streaming;
    streaming.call = make_call(timeout_ms);
    streaming.pages = std::make_shared<DirectPages<Page>>(streaming.call);
    streaming.call->on_end([pages = std::weak_ptr(streaming.pages)] {
      if (const auto read = pages.lock()) read->wake();
    });
    route_->ask(method.name, streaming.call, request,
                [route = route_, method, request, streaming](const NodeServices& services) {
                  DirectSink<Page> sink(route, method.name, streaming.call, streaming.pages);
                  const grpc::Status status =
                      to_grpc(route->have_answered(services, method, *streaming.call, request,
                                                   static_cast<PageSink<Page>*>(&sink)));
                  route->network.carry({route->to, route->from, DirectMessage::Kind::kAnswer,
                                        method.name, streaming.call, &request, &status},
                                       [call = streaming.call, status] { call->answer(status); });
                });
    return streaming;
  }
  OpenCalls& open() { return open_; }

 private:
  std::shared_ptr<DirectCall> make_call(int64_t timeout_ms) {
    return std::make_shared<DirectCall>(callee_, route_->network.clock(), timeout_ms);
  }
  template <typename Service, typename Request, typename Reply>
  void begin(const Method<Service, Request, Reply>& method, const std::shared_ptr<DirectCall>& call,
             const Request& request, Reply* reply) {
    route_->ask(method.name, call, request,
                [route = route_, method, call, request, reply](const NodeServices& services) {
                  const auto answer = std::make_shared<Reply>();
                  const grpc::Status status =
                      to_grpc(route->have_answered(services, method, *call, request, answer.get()));
                  route->network.carry({route->to, route->from, DirectMessage::Kind::kAnswer,
                                        method.name, call, &request, &status, answer.get()},
                                       [call, status, answer, reply] {
                                         call->answer(status, [&] {
                                           if (status.ok()) reply->Swap(answer.get());
                                         });
                                       });
                });
  }

  AsyncCalls& async_;
  const Callee callee_;
  const RoutePtr route_;
  OpenCalls open_;
};

template <typename Page>
class DirectReader final : public grpc::ClientReaderInterface<Page> {
 public:
  DirectReader(OpenCalls& open, grpc::ClientContext* context, Caller::Streaming<Page> streaming)
      : open_(open), context_(context), streaming_(std::move(streaming)) {
    open_.add(context_, streaming_.call);
  }
  ~DirectReader() override {
    streaming_.call->give_up({grpc::StatusCode::CANCELLED, "CANCELLED"});
    open_.remove(context_);
  }
  void WaitForInitialMetadata() override {}
  bool NextMessageSize(uint32_t* size) override {
    *size = static_cast<uint32_t>(kMaxRpcBytes);
    return !streaming_.call->ended();
  }
  bool Read(Page* page) override {
    if (streaming_.pages->read(page, streaming_.call->left_ms())) return true;
    if (!streaming_.call->ended()) streaming_.call->give_up_late();
    return false;
  }
  grpc::Status Finish() override { return streaming_.call->wait(); }

 private:
  OpenCalls& open_;
  grpc::ClientContext* const context_;
  const Caller::Streaming<Page> streaming_;
};

template <typename Page>
class DirectPageStream final : public PageStream<Page> {
 public:
  explicit DirectPageStream(Caller::Streaming<Page> streaming) : streaming_(std::move(streaming)) {}
  ~DirectPageStream() override {
    streaming_.call->give_up({grpc::StatusCode::CANCELLED, "CANCELLED"});
  }
  bool read(Page* page, int64_t timeout_ms) override {
    const int64_t most_ms = std::min(timeout_ms, streaming_.call->left_ms());
    if (streaming_.pages->read(page, most_ms)) return true;
    if (!streaming_.call->ended()) streaming_.call->give_up_late();
    status_ = streaming_.call->wait();
    return false;
  }
  const grpc::Status& status() const override { return status_; }

 private:
  const Caller::Streaming<Page> streaming_;
  grpc::Status status_;
};

// A use of a stub's interface that is no part of the seam (control/peers/peer_link.h).
[[noreturn]] void not_of_the_seam() { std::abort(); }

#define SLUICE_REQUEST_(handler) HandlerTypes<decltype(&Service::handler)>::Request
#define SLUICE_REPLY_(handler) HandlerTypes<decltype(&Service::handler)>::Reply
#define SLUICE_METHOD_(method, handler, kind)                         \
  Method<Service, SLUICE_REQUEST_(handler), SLUICE_REPLY_(handler)> { \
#method, Admission::Kind::kind, &Service::handler                 \
  }

// Of a stub.
#define SLUICE_CALL_(method, handler, kind)                                                     \
  grpc::Status method(grpc::ClientContext* context, const SLUICE_REQUEST_(handler) & request,   \
                      SLUICE_REPLY_(handler) * reply) override {                                \
    return caller_.call(SLUICE_METHOD_(method, handler, kind), context, request, reply);        \
  }                                                                                             \
  grpc::ClientAsyncResponseReaderInterface<SLUICE_REPLY_(handler)>* Async##method##Raw(         \
      grpc::ClientContext*, const SLUICE_REQUEST_(handler)&, grpc::CompletionQueue*) override { \
    not_of_the_seam();                                                                          \
  }                                                                                             \
  grpc::ClientAsyncResponseReaderInterface<SLUICE_REPLY_(handler)>* PrepareAsync##method##Raw(  \
      grpc::ClientContext*, const SLUICE_REQUEST_(handler)&, grpc::CompletionQueue*) override { \
    not_of_the_seam();                                                                          \
  }
#define SLUICE_STREAM_(method, handler, kind)                                                   \
  grpc::ClientReaderInterface<SLUICE_REPLY_(handler)::Page>* method##Raw(                       \
      grpc::ClientContext* context, const SLUICE_REQUEST_(handler) & request) override {        \
    return new DirectReader<SLUICE_REPLY_(handler)::Page>(                                      \
        caller_.open(), context,                                                                \
        caller_.stream(SLUICE_METHOD_(method, handler, kind), request, left_ms_of(*context)));  \
  }                                                                                             \
  grpc::ClientAsyncReaderInterface<SLUICE_REPLY_(handler)::Page>* Async##method##Raw(           \
      grpc::ClientContext*, const SLUICE_REQUEST_(handler)&, grpc::CompletionQueue*, void*)     \
      override {                                                                                \
    not_of_the_seam();                                                                          \
  }                                                                                             \
  grpc::ClientAsyncReaderInterface<SLUICE_REPLY_(handler)::Page>* PrepareAsync##method##Raw(    \
      grpc::ClientContext*, const SLUICE_REQUEST_(handler)&, grpc::CompletionQueue*) override { \
    not_of_the_seam();                                                                          \
  }
// Of its async().
#define SLUICE_CALLBACK_(method, handler, kind)                                                  \
  void method(grpc::ClientContext* context, const SLUICE_REQUEST_(handler) * request,            \
              SLUICE_REPLY_(handler) * reply, std::function<void(grpc::Status)> done) override { \
    caller_.call_async(SLUICE_METHOD_(method, handler, kind), context, request, reply,           \
                       std::move(done));                                                         \
  }                                                                                              \
  void method(grpc::ClientContext*, const SLUICE_REQUEST_(handler)*, SLUICE_REPLY_(handler)*,    \
              grpc::ClientUnaryReactor*) override {                                              \
    not_of_the_seam();                                                                           \
  }
#define SLUICE_STREAM_CALLBACK_(method, handler, kind)                           \
  void method(grpc::ClientContext*, const SLUICE_REQUEST_(handler)*,             \
              grpc::ClientReadReactor<SLUICE_REPLY_(handler)::Page>*) override { \
    not_of_the_seam();                                                           \
  }
#define SLUICE_STUB_(name, service, list)                              \
  class name final : public v1::service::StubInterface {               \
   public:                                                             \
    explicit name(Caller& caller) : caller_(caller), async_(caller) {} \
    async_interface* async() override { return &async_; }              \
                                                                       \
   private:                                                            \
    using Service = service##Service;                                  \
    class Async final : public async_interface {                       \
     public:                                                           \
      explicit Async(Caller& caller) : caller_(caller) {}              \
      list(SLUICE_CALLBACK_, SLUICE_STREAM_CALLBACK_)                  \
                                                                       \
          private : Caller& caller_;                                   \
    };                                                                 \
    list(SLUICE_CALL_, SLUICE_STREAM_) Caller& caller_;                \
    Async async_;                                                      \
  };
using SluiceService = ServingService;
SLUICE_STUB_(DirectPeerStub, Peer, SLUICE_PEER_CALLS)
SLUICE_STUB_(DirectServingStub, Sluice, SLUICE_SERVING_CALLS)

class DirectLink final : public PeerLink {
 public:
  DirectLink(DirectNetwork& network, AsyncCalls& async, const Callee& callee,
             const std::string& from, const std::string& to)
      : caller_(network, async, callee, from, to), peer_(caller_), serving_(caller_) {}

  v1::Peer::StubInterface& peer() override { return peer_; }
  v1::Sluice::StubInterface& serving() override { return serving_; }
  bool connect(int64_t timeout_ms) override {
    const Route& route = caller_.route();
    return route.network.wait_for(route.to, timeout_ms);
  }
  void cancel(grpc::ClientContext& context) override {
    if (const auto call = caller_.open().find(&context)) {
      call->give_up({grpc::StatusCode::CANCELLED, "CANCELLED"});
    }
  }
  std::unique_ptr<PageStream<v1::ScanPage>> scan_slot(const v1::ScanRequest& request,
                                                      int64_t whole_ms) override {
    const Method<PeerService, v1::ScanRequest, PageSink<v1::ScanPage>> method{
        "ScanSlot", Admission::Kind::kScan, &PeerService::scan_slot};
    return std::make_unique<DirectPageStream<v1::ScanPage>>(
        caller_.stream(method, request, whole_ms));
  }
  std::unique_ptr<PageStream<v1::ExportPage>> export_slots(const v1::ExportRequest& request,
                                                           int64_t whole_ms) override {
    const Method<ServingService, v1::ExportRequest, PageSink<v1::ExportPage>> method{
        "Export", Admission::Kind::kExport, &ServingService::export_slots};
    return std::make_unique<DirectPageStream<v1::ExportPage>>(
        caller_.stream(method, request, whole_ms));
  }

 private:
  Caller caller_;
  DirectPeerStub peer_;
  DirectServingStub serving_;
};

class DirectDialer final : public PeerDialer {
 public:
  DirectDialer(DirectNetwork& network, const std::string& from)
      : network_(network),
        from_(from),
        async_(make_thread_executor("answers to " + from, 1, network.clock())) {}
  std::unique_ptr<PeerLink> dial(const Callee& callee, const std::string& address) override {
    return std::make_unique<DirectLink>(network_, async_, callee, from_, address);
  }

 private:
  DirectNetwork& network_;
  const std::string from_;
  AsyncCalls async_;
};

}  // namespace

CallServerFactory DirectNetwork::server_factory() {
  return [this](const std::string& listen,
                const NodeServices& services) -> absl::StatusOr<std::unique_ptr<CallServer>> {
    auto server = std::make_unique<DirectServer>(*this, services);
    SLUICE_RETURN_IF_ERROR(server->start(listen));
    return server;
  };
}

std::unique_ptr<PeerDialer> DirectNetwork::make_dialer(const std::string& from) {
  return std::make_unique<DirectDialer>(*this, from);
}

void DirectNetwork::carry(const DirectMessage&, std::function<void()> deliver) { deliver(); }

void DirectNetwork::crash(const std::string& address) {
  const std::lock_guard lock(mutex_);
  const auto found = servers_.find(address);
  if (found == servers_.end()) return;
  std::erase_if(taken_over_,
                [server = found->second](const auto& each) { return each.second == server; });
  servers_.erase(found);
}

void DirectNetwork::take_over(const std::string& address, const std::string& by) {
  const std::lock_guard lock(mutex_);
  const auto found = servers_.find(by);
  if (found != servers_.end()) taken_over_[address] = found->second;
}

bool DirectNetwork::post(const std::string& address, std::shared_ptr<DirectCall> call, Work work) {
  const std::lock_guard lock(mutex_);
  for (const auto* const servers : {&servers_, &taken_over_}) {
    const auto found = servers->find(address);
    if (found == servers->end()) continue;
    found->second->accept(std::move(call), std::move(work));
    return true;
  }
  return false;
}

bool DirectNetwork::wait_for(const std::string& address, int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                           [&] { return servers_.contains(address); });
}

absl::StatusOr<std::string> DirectNetwork::listen(const std::string& listen, DirectServer* server) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return invalid_argument("{}: HOST:PORT expected", listen);
  const std::lock_guard lock(mutex_);
  std::string address = listen;
  if (listen.substr(colon + 1) == "0") {
    address = fmt::format("{}:{}", listen.substr(0, colon), ++last_port_);
  }
  if (!servers_.emplace(address, server).second) return already_exists("{}: in use", address);
  changed_.notify_all();
  return address;
}

void DirectNetwork::leave(const DirectServer* server) {
  const std::lock_guard lock(mutex_);
  for (auto* const servers : {&servers_, &taken_over_}) {
    std::erase_if(*servers, [server](const auto& each) { return each.second == server; });
  }
}

}  // namespace sluice
