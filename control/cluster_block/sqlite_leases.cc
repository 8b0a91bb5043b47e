#include "control/cluster_block/sqlite_leases.h"

#include <string>

#include "base/file.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice::cluster_block {
namespace {

struct Meta {
  std::string boot;
  std::string leases;
};

absl::StatusOr<Meta> load_meta(Database& database) {
  SLUICE_ASSIGN_OR_RETURN(Statement query, database.prepare("SELECT boot, leases FROM meta"));
  SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
  if (!row) return data_loss("cluster block sqlite:{} has no revision", database.path());
  return Meta{std::string(query.bytes(0)), std::string(query.bytes(1))};
}

std::string this_boot() {
  const auto boot = read_file("/proc/sys/kernel/random/boot_id", 128);
  return boot.ok() ? *boot : "unknown";
}

// NOT_FOUND and DATA_LOSS: it has to be made.
absl::StatusOr<std::shared_ptr<LeaseTable>> open_as_recorded(Database& database,
                                                             const std::string& boot) {
  SLUICE_ASSIGN_OR_RETURN(const Meta meta, load_meta(database));
  if (meta.boot != boot) return not_found("the leases are of an earlier boot");
  return LeaseTable::open(LeaseTable::path_beside(database.file()), meta.leases);
}

bool has_to_be_made(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsDataLoss(status);
}

}  // namespace

absl::StatusOr<std::vector<LeaseId>> leases_of_keys(Database& database) {
  std::vector<LeaseId> leases;
  SLUICE_ASSIGN_OR_RETURN(Statement query,
                          database.prepare("SELECT lease FROM kv WHERE lease <> 0 GROUP BY lease "
                                           "ORDER BY max(revision)"));
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) return leases;
    leases.push_back(static_cast<LeaseId>(query.number(0)));
  }
}

absl::StatusOr<std::shared_ptr<LeaseTable>> open_lease_table(Database& database,
                                                             const Clock& clock) {
  // What has the database's name by now may be another cluster's.
  if (database.has_moved()) {
    return unavailable("cluster block sqlite:{} was moved, removed or replaced while it was open",
                       database.path());
  }
  const std::string boot = this_boot();
  auto table = open_as_recorded(database, boot);
  if (table.ok() || !has_to_be_made(table.status())) return table;
  // Under the database's write lock only one process makes it.
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(database, Transaction::Kind::kWrite));
  table = open_as_recorded(database, boot);
  if (table.ok() || !has_to_be_made(table.status())) return table;
  SLUICE_ASSIGN_OR_RETURN(const Meta meta, load_meta(database));
  std::vector<LeaseId> leases;
  if (meta.boot == boot) {
    SLUICE_ASSIGN_OR_RETURN(leases, leases_of_keys(database));
  }
  const std::string id = make_uuid();
  SLUICE_ASSIGN_OR_RETURN(auto made, LeaseTable::make(LeaseTable::path_beside(database.file()),
                                                      database.file(), id, leases, clock));
  SLUICE_ASSIGN_OR_RETURN(Statement update,
                          database.prepare("UPDATE meta SET boot = ?1, leases = ?2"));
  SLUICE_RETURN_IF_ERROR(update.bind_bytes(1, boot).bind_bytes(2, id).run());
  // A crash before this leaves a table that is not the recorded one: it is made once more.
  SLUICE_RETURN_IF_ERROR(transaction.commit());
  return made;
}

}  // namespace sluice::cluster_block
