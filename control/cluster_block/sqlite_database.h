// SQLite with errors as Status. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_DATABASE_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_DATABASE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sluice::cluster_block {

class Statement;
class Transaction;

// One connection. Confined to one thread at a time. Must not be used across fork().
class Database {
 public:
  // NOT_FOUND when the file is not there and must not be made.
  static absl::StatusOr<Database> open(const std::string& path, bool create, int busy_timeout_ms);

  absl::Status execute(const char* sql);
  absl::StatusOr<Statement> prepare(std::string_view sql);
  // The first column of the first row; 0 without a row.
  absl::StatusOr<int64_t> number(std::string_view sql);
  // A transaction that writes, unless another connection has one: then nullopt, at once.
  absl::StatusOr<std::optional<Transaction>> try_to_write();
  // The connection's last error as a Status: which file, what failed.
  absl::Status error(int code) const;
  const std::string& path() const { return path_; }
  // Absolute, and without symbolic links: what SQLite's own files are named after.
  std::string file() const;
  // The file is no longer where it was opened: moved, removed or replaced.
  bool has_moved() const;

 private:
  struct Close {
    void operator()(sqlite3* db) const;
  };
  std::unique_ptr<sqlite3, Close> db_;
  std::string path_;
  int busy_timeout_ms_ = 0;
};

// A prepared statement. Must not outlive its database.
class Statement {
 public:
  Statement& bind(int index, int64_t value);
  Statement& bind_bytes(int index, std::string_view bytes);  // which must live until the last step
  // True while there is a row.
  absl::StatusOr<bool> step();
  // Steps to the end.
  absl::Status run();
  // Back to before the first step.
  void reset();

  int64_t number(int column) const;
  std::string_view bytes(int column) const;  // valid until the next step

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  Statement(const Database* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}
  const Database* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = 0;  // the first error of a bind
};

// A transaction, rolled back unless commit() succeeded.
class Transaction {
 public:
  enum class Kind { kRead, kWrite };
  static absl::StatusOr<Transaction> begin(Database& database, Kind kind);
  Transaction(Transaction&& other) noexcept : database_(other.database_) {
    other.database_ = nullptr;
  }
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  absl::Status commit();

 private:
  friend class Database;
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_DATABASE_H_
