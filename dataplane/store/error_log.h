// Where RocksDB says what fails: in the program's log, and in LOG beside its files, where people
// who know RocksDB look. RocksDB's own LOG would end the process on a disk that fails: it asserts
// that nothing is appended to a file behind a write that failed, and reports the full disk, once
// more, into that very file. What this one cannot write is lost, and said in the program's log.
#ifndef SLUICE_DATAPLANE_STORE_ERROR_LOG_H_
#define SLUICE_DATAPLANE_STORE_ERROR_LOG_H_

#include <rocksdb/env.h>

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <string>

#include "base/file.h"

namespace sluice {

// Thread-safe. The first kMostErrors lines of an opening; what fails is told by whoever called,
// too.
class ErrorLog final : public rocksdb::Logger {
 public:
  static constexpr int kMostErrors = 200;
  static constexpr uint64_t kFullBytes = uint64_t{1} << 20;  // begins again beyond that

  // Of the database in this directory, which exists or is about to be made.
  explicit ErrorLog(const std::string& path);
  using rocksdb::Logger::Logv;
  void LogHeader(const char*, va_list) override {}
  void Logv(const char*, va_list) override {}
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override;

 private:
  void append(const std::string& line);

  const std::string path_;
  UniqueFd file_;
  std::atomic<int> errors_{0};
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_ERROR_LOG_H_
