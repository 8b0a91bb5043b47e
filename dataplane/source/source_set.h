// Several sources of a node as one: the cut of its records, and its trees by their numbers.
#ifndef SLUICE_DATAPLANE_SOURCE_SOURCE_SET_H_
#define SLUICE_DATAPLANE_SOURCE_SOURCE_SET_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "dataplane/block/record.h"
#include "dataplane/source/slot_source.h"

namespace sluice {

class SourceSet final : public SlotSource {
 public:
  // 0: the records. All before it is used.
  void add(uint32_t tree, std::shared_ptr<SlotSource> source) {
    sources_[tree] = std::move(source);
  }

  bool has(uint32_t slot) const override {
    const auto found = sources_.find(tree_number_of(slot));
    return found != sources_.end() && found->second->has(slot);
  }
  std::unique_ptr<SlotScan> scan(uint32_t slot) override {
    return sources_.at(tree_number_of(slot))->scan(slot);
  }
  std::optional<SlotDigest> digest(uint32_t slot) const override {
    return sources_.at(tree_number_of(slot))->digest(slot);
  }

 private:
  std::map<uint32_t, std::shared_ptr<SlotSource>> sources_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_SOURCE_SOURCE_SET_H_
