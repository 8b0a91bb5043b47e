#include "tests/simulation/file_content.h"

#include <algorithm>
#include <cstring>

namespace sluice::simulation {
namespace {

size_t pages_of(uint64_t bytes) {
  return (bytes + FileContent::kPageBytes - 1) / FileContent::kPageBytes;
}

}  // namespace

size_t FileContent::read(uint64_t offset, std::span<char> into) const {
  if (offset >= size_) return 0;
  const size_t bytes = std::min<uint64_t>(into.size(), size_ - offset);
  for (size_t done = 0; done < bytes;) {
    const size_t in_page = (offset + done) % kPageBytes;
    const size_t part = std::min(bytes - done, kPageBytes - in_page);
    const PagePtr& page = pages_[(offset + done) / kPageBytes];
    if (page == nullptr) {
      std::memset(into.data() + done, 0, part);
    } else {
      std::memcpy(into.data() + done, page->data() + in_page, part);
    }
    done += part;
  }
  return bytes;
}

uint64_t FileContent::pages_added_by(uint64_t offset, size_t bytes) const {
  uint64_t added = 0;
  for (size_t i = offset / kPageBytes; i < pages_of(offset + bytes); ++i) {
    added += i >= pages_.size() || pages_[i] == nullptr;
  }
  return added;
}

void FileContent::write(uint64_t offset, std::string_view bytes) {
  if (offset + bytes.size() > size_) {
    size_ = offset + bytes.size();
    pages_.resize(pages_of(size_));
  }
  while (!bytes.empty()) {
    const size_t in_page = offset % kPageBytes;
    const size_t part = std::min(bytes.size(), kPageBytes - in_page);
    std::memcpy(page_to_change(offset / kPageBytes).data() + in_page, bytes.data(), part);
    bytes.remove_prefix(part);
    offset += part;
  }
}

void FileContent::resize(uint64_t bytes) {
  for (size_t i = pages_of(bytes); i < pages_.size(); ++i) put_page(i, nullptr);
  if (bytes < size_ && bytes % kPageBytes != 0 && pages_[bytes / kPageBytes] != nullptr) {
    Page& last = page_to_change(bytes / kPageBytes);
    std::fill(last.begin() + static_cast<ptrdiff_t>(bytes % kPageBytes), last.end(), '\0');
  }
  size_ = bytes;
  pages_.resize(pages_of(bytes));
}

FileContent::Page& FileContent::page_to_change(size_t index) {
  const PagePtr& page = pages_[index];
  if (page == nullptr) {
    put_page(index, std::make_shared<Page>());
  } else if (page.use_count() > 1) {
    put_page(index, std::make_shared<Page>(*page));
  } else {
    mark(index);
  }
  return *page;
}

void FileContent::put_page(size_t index, PagePtr page) {
  allocated_ += page != nullptr;
  allocated_ -= pages_[index] != nullptr;
  pages_[index] = std::move(page);
  mark(index);
}

void FileContent::mark(size_t index) {
  if (index >= is_changed_.size()) is_changed_.resize(index + 1);
  if (is_changed_[index]) return;
  is_changed_[index] = true;
  changed_.push_back(index);
}

uint64_t FileContent::begin_sync() {
  Sync sync{++last_sync_, size_, {}};
  sync.pages.reserve(changed_.size());
  for (const size_t index : changed_) {
    sync.pages.emplace_back(index, index < pages_.size() ? pages_[index] : nullptr);
    is_changed_[index] = false;
  }
  changed_.clear();
  syncs_.push_back(std::move(sync));
  return last_sync_;
}

void FileContent::put_durable(size_t index, const PagePtr& page) {
  if (index >= durable_.size()) durable_.resize(index + 1);
  durable_[index] = page;
}

void FileContent::end_sync(uint64_t number) {
  // Those before it have written what this one needs no longer write.
  for (; !syncs_.empty() && syncs_.front().number <= number; syncs_.pop_front()) {
    for (const auto& [index, page] : syncs_.front().pages) put_durable(index, page);
    durable_size_ = syncs_.front().bytes;
    durable_.resize(pages_of(durable_size_));
  }
}

void FileContent::fail_sync(uint64_t number) {
  std::erase_if(syncs_, [number](const Sync& sync) { return sync.number == number; });
}

FileContent::PagePtr FileContent::torn(const PagePtr& before, const PagePtr& after,
                                       Random& random) const {
  auto page = std::make_shared<Page>();
  for (size_t at = 0; at < kPageBytes; at += kSectorBytes) {
    const PagePtr& from = random.chance(0.5) ? before : after;
    if (from != nullptr) std::memcpy(page->data() + at, from->data() + at, kSectorBytes);
  }
  return page;
}

void FileContent::lose_power(Kept kept, Random& random) {
  const uint64_t had = durable_size_;
  if (kept != Kept::kNothing && durable_size_ != size_) {
    const uint64_t low = std::min(size_, durable_size_);
    const uint64_t high = std::max(size_, durable_size_);
    const bool whole = kept == Kept::kAll || random.chance(0.4);
    durable_size_ = whole ? size_ : low + random.below(high - low + 1);
  }
  durable_.resize(pages_of(durable_size_));
  for (size_t i = 0; kept != Kept::kNothing && i < durable_.size(); ++i) {
    const PagePtr after = i < pages_.size() ? pages_[i] : nullptr;
    if (after == durable_[i]) continue;
    const bool appended = kept == Kept::kFirstPart && (i + 1) * kPageBytes > had;
    const uint64_t what = kept == Kept::kAll || appended ? 0 : random.below(3);
    if (what == 0) durable_[i] = after;
    if (what == 1) durable_[i] = torn(durable_[i], after, random);
  }
  size_ = durable_size_;
  pages_ = durable_;
  // Behind the end there is nothing that would come back when it grows.
  if (const size_t end = size_ % kPageBytes; end != 0 && pages_.back() != nullptr) {
    pages_.back() = std::make_shared<Page>(*pages_.back());
    std::fill(pages_.back()->begin() + static_cast<ptrdiff_t>(end), pages_.back()->end(), '\0');
    durable_ = pages_;
  }
  allocated_ = static_cast<uint64_t>(std::count_if(
      pages_.begin(), pages_.end(), [](const PagePtr& page) { return page != nullptr; }));
  changed_.clear();
  is_changed_.clear();
  syncs_.clear();
}

FileContent FileContent::durable_copy() const {
  FileContent copy;
  copy.size_ = copy.durable_size_ = size_;
  copy.pages_ = copy.durable_ = pages_;
  copy.allocated_ = allocated_;
  return copy;
}

void FileContent::flip_bit(uint64_t offset, int bit) {
  const size_t index = offset / kPageBytes;
  const auto flip = [&](PagePtr& page) {
    page = page == nullptr ? std::make_shared<Page>() : std::make_shared<Page>(*page);
    (*page)[offset % kPageBytes] ^= static_cast<char>(1 << bit);
  };
  const bool same = index < durable_.size() && durable_[index] == pages_[index];
  PagePtr flipped = pages_[index];
  flip(flipped);
  if (same) {
    durable_[index] = flipped;
  } else if (index < durable_.size()) {
    flip(durable_[index]);
  }
  allocated_ += pages_[index] == nullptr;
  pages_[index] = std::move(flipped);
}

}  // namespace sluice::simulation
