#include "control/membership/documents.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "base/status.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

NodeInfo some_node() {
  NodeInfo info;
  info.name = "n1";
  info.number = 3;
  info.weight = 2.5;
  info.weight_explicit = true;
  info.rates.disk_write = {1e9, 0};
  info.rates.link = {2.5e8, 17.25};
  info.rates.limit = 4e7;
  info.rates.free_bytes = uint64_t{1} << 50;
  info.rack = "r1";
  info.control_address = "127.0.0.1:1";
  info.data_address = "127.0.0.1:2";
  info.driver = "tcp";
  info.store_id = "s";
  info.incarnation = 9;
  info.archive_folder = "/a b/\"c\"";
  return info;
}

TEST(NodeName, Rules) {
  for (const std::string& name :
       std::vector<std::string>{"a", "0", "n1", "a.b_c-d", "x" + std::string(62, 'y')}) {
    EXPECT_TRUE(check_node_name(name).ok()) << name;
  }
  for (const std::string& name : std::vector<std::string>{"", "A", "-a", ".a", "_a", "a b", "a/b",
                                                          "ä", "x" + std::string(63, 'y')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(check_node_name(name))) << name;
  }
}

TEST(MembershipDocuments, RoundTrip) {
  ClusterInfo cluster;
  cluster.uuid = make_uuid();
  cluster.seed = UINT64_MAX;
  cluster.created_ms = 1'700'000'000'000;
  EXPECT_EQ(*decode_cluster_info("cluster", encode(cluster)), cluster);
  EXPECT_EQ(cluster.write_quorum(), 2u);
  EXPECT_EQ(cluster.read_quorum(), 2u);
  EXPECT_EQ(*decode_node_info("nodes/n1", encode(some_node())), some_node());
  const LiveInfo live{"i", "s", 4, 17, "lock"};
  EXPECT_EQ(*decode_live_info("live/n1", encode(live)), live);
}

TEST(MembershipDocuments, ANodeSaysWhereItsWeightComesFrom) {
  NodeInfo info = some_node();
  EXPECT_EQ(weight_of(info).from, WeightFrom::kOperator);
  EXPECT_EQ(weight_of(info).weight, 2.5);
  info.weight_explicit = false;
  EXPECT_STREQ(weight_of(info).what, "limit");
  EXPECT_EQ(weight_of(info).from, WeightFrom::kProbe);
  EXPECT_EQ(weight_of(info).weight, 2.5) << "the settled one";
  info.rates.limit = 0;
  EXPECT_STREQ(weight_of(info).what, "link");
  EXPECT_EQ(weight_of(info).from, WeightFrom::kWork);
}

TEST(MembershipDocuments, HostileInputIsDataLossNamingTheKey) {
  const std::string good = encode(some_node());
  const auto refused = [](const std::string& document) {
    const absl::Status status = decode_node_info("nodes/n1", document).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << document << status;
    EXPECT_NE(message_of(status).find("'nodes/n1'"), std::string_view::npos) << status;
  };
  for (const std::string document : {"", "{", "[]", "null", "7", "{}", "garbage"}) {
    refused(document);
  }
  for (size_t i = 0; i < good.size(); ++i) refused(good.substr(0, i));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    refused(changed);
  }
  // Whole, and wrong.
  const auto refuses = [&](const char* what, const auto& change) {
    SCOPED_TRACE(what);
    v1::NodeDocument document;
    ASSERT_TRUE(decode_document("nodes/n1", good, "sluice.node.3", &document).ok());
    change(document);
    refused(encode_document("sluice.node.3", document));
  };
  refuses("number", [](auto& document) { document.set_number(0); });
  refuses("weight", [](auto& document) { document.set_weight(0); });
  refuses("weight", [](auto& document) { document.set_weight(INFINITY); });
  refuses("weight", [](auto& document) { document.set_weight(NAN); });
  refuses("name", [](auto& document) { document.set_name("n2"); });
  refuses("limit", [](auto& document) { document.set_limit(-1); });
  refuses("limit", [](auto& document) { document.set_limit(INFINITY); });
  refuses("rate", [](auto& document) { document.mutable_link()->set_bytes_per_second(-1); });
  refuses("seconds", [](auto& document) { document.mutable_link()->set_work_seconds(-1); });
  refuses("rack", [](auto& document) { document.set_rack(std::string(64, 'r')); });
  refused(encode_document("sluice.node.2", v1::NodeDocument()));
  EXPECT_TRUE(absl::IsDataLoss(decode_cluster_info("cluster", good).status()));
  EXPECT_TRUE(absl::IsDataLoss(decode_live_info("live/n1", good).status()));
  Random random(1);
  for (int i = 0; i < 5000; ++i) {
    std::string noisy = good;
    for (int k = 0; k < 3; ++k)
      noisy[random.below(noisy.size())] = static_cast<char>(random.next());
    decode_node_info("nodes/n1", noisy).IgnoreError();  // must not crash
  }
  refused(std::string(100'000, '['));
}

}  // namespace
}  // namespace sluice
