#include "control/cluster_block/sqlite_database.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/status.h"

namespace sluice::cluster_block {

void Database::Close::operator()(sqlite3* db) const { sqlite3_close_v2(db); }
void Statement::Finalize::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

absl::StatusOr<Database> Database::open(const std::string& path, bool create, int busy_timeout_ms) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return errno_status(errno, fmt::format("cluster block {}", path));
    if (!create) return not_found("no cluster at sqlite:{}", path);
  } else if (!S_ISREG(info.st_mode)) {
    return failed_precondition("sqlite:{} is not a file, so it is no cluster block", path);
  }
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  Database database;
  database.db_.reset(raw);
  database.path_ = path;
  database.busy_timeout_ms_ = busy_timeout_ms;
  if (raw == nullptr) return resource_exhausted("no memory to open sqlite:{}", path);
  if (code != SQLITE_OK) return database.error(code);
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, busy_timeout_ms);
  return database;
}

absl::Status Database::error(int code) const {
  const char* what = db_ ? sqlite3_errmsg(db_.get()) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::OkStatus();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return unavailable("cluster block sqlite:{} is busy with other writers: {}", path_, what);
    case SQLITE_NOTADB:
      return data_loss("sqlite:{} is not a cluster block: {}", path_, what);
    case SQLITE_CORRUPT:
      return data_loss("cluster block sqlite:{} is damaged: {}", path_, what);
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return resource_exhausted("cluster block sqlite:{}: {}", path_, what);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return permission_denied("cluster block sqlite:{} cannot be written: {}", path_, what);
    case SQLITE_CANTOPEN: {
      const int error = sqlite3_system_errno(db_.get());
      const std::string context = fmt::format("cluster block sqlite:{} cannot be opened", path_);
      if (error != 0) return errno_status(error, context);
      return unavailable("{}: {}", context, what);
    }
    default:
      return unavailable("cluster block sqlite:{}: {}", path_, what);
  }
}

std::string Database::file() const {
  const char* name = sqlite3_db_filename(db_.get(), "main");
  return name == nullptr || *name == '\0' ? path_ : name;
}

bool Database::has_moved() const {
  int moved = 0;
  return sqlite3_file_control(db_.get(), "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
         moved != 0;
}

absl::Status Database::execute(const char* sql) {
  return error(sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr));
}

absl::StatusOr<std::optional<Transaction>> Database::try_to_write() {
  sqlite3_busy_timeout(db_.get(), 0);
  const int code = sqlite3_exec(db_.get(), "BEGIN IMMEDIATE", nullptr, nullptr, nullptr);
  sqlite3_busy_timeout(db_.get(), busy_timeout_ms_);
  if ((code & 0xff) == SQLITE_BUSY) return std::nullopt;
  SLUICE_RETURN_IF_ERROR(error(code));
  return Transaction(this);
}

absl::StatusOr<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(db_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return error(code);
  return Statement(this, statement);
}

absl::StatusOr<int64_t> Database::number(std::string_view sql) {
  SLUICE_ASSIGN_OR_RETURN(Statement statement, prepare(sql));
  SLUICE_ASSIGN_OR_RETURN(const bool row, statement.step());
  return row ? statement.number(0) : 0;
}

Statement& Statement::bind(int index, int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), index, value);
  if (code != SQLITE_OK && bound_ == SQLITE_OK) bound_ = code;
  return *this;
}

Statement& Statement::bind_bytes(int index, std::string_view bytes) {
  const char* data = bytes.empty() ? "" : bytes.data();  // a null pointer would bind NULL
  const int code = sqlite3_bind_blob64(statement_.get(), index, data, bytes.size(), SQLITE_STATIC);
  if (code != SQLITE_OK && bound_ == SQLITE_OK) bound_ = code;
  return *this;
}

absl::StatusOr<bool> Statement::step() {
  if (bound_ != SQLITE_OK) return database_->error(bound_);
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->error(code);
}

absl::Status Statement::run() {
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, step());
    if (!row) return absl::OkStatus();
  }
}

void Statement::reset() { sqlite3_reset(statement_.get()); }

int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string_view Statement::bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  if (data == nullptr || size <= 0) return {};
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

absl::StatusOr<Transaction> Transaction::begin(Database& database, Kind kind) {
  SLUICE_RETURN_IF_ERROR(database.execute(kind == Kind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return Transaction(&database);
}

Transaction::~Transaction() {
  if (database_ != nullptr) database_->execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::commit() {
  const absl::Status status = database_->execute("COMMIT");
  if (status.ok()) database_ = nullptr;
  return status;
}

}  // namespace sluice::cluster_block
