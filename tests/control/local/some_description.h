// A description with every kind of field, for tests of what is read of local.json.
#ifndef SLUICE_TESTS_CONTROL_LOCAL_SOME_DESCRIPTION_H_
#define SLUICE_TESTS_CONTROL_LOCAL_SOME_DESCRIPTION_H_

#include "control/local/description.h"

namespace sluice::testing {

inline LocalDescription some_description() {
  LocalDescription description;
  description.id = "00000000-0000-4000-8000-000000000001";
  description.made_in = "/tmp/demo";
  description.url = "sqlite:/tmp/demo/cluster.db";
  description.driver = "tcp";
  description.replicas = 2;
  description.slots = 4096;
  description.complete = true;
  description.nodes = {{"n1", 1, 0, "a", "127.0.0.1:7001", "127.0.0.1:7002"},
                       {"n2", 2.5, 1'000'000, "", "127.0.0.1:7003", "127.0.0.1:7004"}};
  return description;
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_CONTROL_LOCAL_SOME_DESCRIPTION_H_
