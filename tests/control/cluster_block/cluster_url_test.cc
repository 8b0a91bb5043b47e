#include <gtest/gtest.h>

#include "base/status.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {
namespace {

TEST(ClusterUrl, Sqlite) {
  const auto url = parse_cluster_url("sqlite:/var/lib/x:y/cluster.db");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_EQ(url->kind, ClusterUrl::Kind::kSqlite);
  EXPECT_EQ(url->path, "/var/lib/x:y/cluster.db");
}

TEST(ClusterUrl, ShowsNoPassword) {
  for (const char* url : {"etcd://root:secret@a:1/p", "etcd://root:sec/secret@h:1/p",
                          "etcds://root:secret@h/p", "http://root:secret@h:2379/p"}) {
    const absl::Status status = parse_cluster_url(url).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << url;
    EXPECT_EQ(message_of(status).find("sec"), std::string_view::npos) << status;
    EXPECT_NE(message_of(status).find("SLUICE_ETCD_USER"), std::string_view::npos) << status;
  }
}

TEST(ClusterUrl, Etcd) {
  const auto url = parse_cluster_url("etcd://a:2379,[::1]:2380,10.0.0.1:1/sluice/prod");
  ASSERT_TRUE(url.ok()) << url.status();
  EXPECT_EQ(url->kind, ClusterUrl::Kind::kEtcd);
  EXPECT_EQ(url->endpoints, (std::vector<std::string>{"a:2379", "[::1]:2380", "10.0.0.1:1"}));
  EXPECT_EQ(url->prefix, "sluice/prod");
}

TEST(ClusterUrl, RefusesOthersNamingTheUrlAndTheForms) {
  for (const std::string url : {"",
                                "sqlite:",
                                "sqlite",
                                "/a/path",
                                "http://a:1/p",
                                "etcd://",
                                "etcd:///p",
                                "etcd://a:1",
                                "etcd://a:1/",
                                "etcd://a/p",
                                "etcd://a:0/p",
                                "etcd://a:65536/p",
                                "etcd://a:1,/p",
                                "etcd://a:1//",
                                "etcd://a:1/p//q",
                                "etcd://a:1/p/doc",
                                "etcd://a:1/commit/q",
                                "etcd://a:1,,b:2/p",
                                "etcd://:1/p",
                                "etcd://a:x/p",
                                "etcd://::1:2/p",
                                "ETCD://a:1/p"}) {
    const absl::Status status = parse_cluster_url(url).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << url;
    EXPECT_NE(message_of(status).find("'" + url + "'"), std::string_view::npos) << status;
    EXPECT_NE(message_of(status).find("sqlite:PATH"), std::string_view::npos) << status;
  }
  EXPECT_TRUE(
      absl::IsInvalidArgument(parse_cluster_url(std::string_view("sqlite:a\0b", 10)).status()));
}

TEST(ClusterUrl, EtcdPrefixes) {
  EXPECT_EQ(parse_cluster_url("etcd://a:1/p/")->prefix, "p");
  const std::string longest(kMaxPrefixBytes, 'p');
  EXPECT_TRUE(parse_cluster_url("etcd://a:1/" + longest).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(parse_cluster_url("etcd://a:1/p" + longest).status()));
}

// What is refused may be logged.
TEST(ClusterUrl, APasswordIsNotRepeated) {
  const absl::Status status = parse_cluster_url("etcd://root:secret@a:1/p").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(message_of(status).find("secret"), std::string_view::npos) << status;
  EXPECT_NE(message_of(status).find("SLUICE_ETCD_USER"), std::string_view::npos) << status;
}

}  // namespace
}  // namespace sluice
