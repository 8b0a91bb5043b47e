// A node that answers streams with given pages, whatever it is asked. It takes no other calls.
#ifndef SLUICE_TESTS_CONTROL_PEERS_SCRIPTED_LINK_H_
#define SLUICE_TESTS_CONTROL_PEERS_SCRIPTED_LINK_H_

#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "control/peers/peer_link.h"
#include "control/peers/peers.h"

namespace sluice {

// The pages, as their bytes, and how the stream ends behind them. It ends as well where the bytes
// are not a page, with INTERNAL, as gRPC ends it.
struct Script {
  std::deque<std::string> pages;
  grpc::Status end;
};

template <typename Page>
class ScriptedPages final : public PageStream<Page> {
 public:
  explicit ScriptedPages(Script& script) : script_(script) {}
  bool read(Page* page, int64_t) override {
    if (script_.pages.empty()) return false;
    const std::string bytes = std::move(script_.pages.front());
    script_.pages.pop_front();
    if (page->ParseFromString(bytes)) return true;
    status_ = {grpc::StatusCode::INTERNAL, "not a page"};
    return false;
  }
  const grpc::Status& status() const override { return status_.ok() ? script_.end : status_; }

 private:
  Script& script_;
  grpc::Status status_;
};

// The script outlives it. Streams go on in it where the one before ended.
class ScriptedLink final : public PeerLink {
 public:
  explicit ScriptedLink(Script& script) : script_(script) {}
  v1::Peer::StubInterface& peer() override { std::abort(); }
  v1::Sluice::StubInterface& serving() override { std::abort(); }
  bool connect(int64_t) override { return true; }
  void cancel(grpc::ClientContext&) override {}
  std::unique_ptr<PageStream<v1::ScanPage>> scan_slot(const v1::ScanRequest&, int64_t) override {
    return std::make_unique<ScriptedPages<v1::ScanPage>>(script_);
  }
  std::unique_ptr<PageStream<v1::ExportPage>> export_slots(const v1::ExportRequest&,
                                                           int64_t) override {
    return std::make_unique<ScriptedPages<v1::ExportPage>>(script_);
  }

 private:
  Script& script_;
};

inline std::shared_ptr<PeerNode> scripted_node(Script& script) {
  return std::make_shared<PeerNode>("n2", "n2:1", std::make_unique<ScriptedLink>(script),
                                    system_clock());
}

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_PEERS_SCRIPTED_LINK_H_
