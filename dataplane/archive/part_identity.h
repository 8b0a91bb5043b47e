// What an archive part is: (cluster, backup, node, manifest digest). Whoever verifies, restores,
// deletes or tidies compares all four with what the part's own files say; the name of a directory
// is never enough.
#ifndef SLUICE_DATAPLANE_ARCHIVE_PART_IDENTITY_H_
#define SLUICE_DATAPLANE_ARCHIVE_PART_IDENTITY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"

namespace sluice {

struct ArchivePartId {
  std::string cluster;        // UUID
  std::string backup;         // UUID
  std::string node;           // that wrote the part; empty: any part of the archive
  Digest128 manifest_digest;  // XXH3-128 of the root manifest's file; zero: not committed yet
  friend bool operator==(const ArchivePartId&, const ArchivePartId&) = default;
};

// What a directory holds, by its files.
struct FoundPart {
  enum class State {
    kUnfinished,       // has a journal and no manifest
    kFinished,         // has the root manifest
    kManifestDamaged,  // has no whole manifest: the indexes tell backup and node
    kRemoving,         // its removal was begun
  };
  State state = State::kUnfinished;
  // Without a whole manifest the digest is zero, and with a damaged one the cluster is empty. The
  // node is empty where all that tells it was removed already.
  ArchivePartId id;
  std::string backup_name;  // empty where it cannot be told
};

// Reads manifest, part file, journal header and indexes, which have to agree. NOT_FOUND where there
// is no directory, or nothing of an archive in it; DATA_LOSS where the files contradict each other
// or do not tell whose they are; FAILED_PRECONDITION for a future format.
absl::StatusOr<FoundPart> identify_part(const std::string& directory);

// "the part of node n1 of backup nightly (UUID)".
std::string describe(const FoundPart& found);

// DATA_LOSS saying what the directory holds and what was expected, unless `found` is the expected
// part. What `found` cannot tell, and a digest of zero in `expected`, is not compared.
absl::Status check_identity(const std::string& directory, const FoundPart& found,
                            const ArchivePartId& expected);

enum class Removable {
  kUnfinished,  // what was never committed: anything else is FAILED_PRECONDITION
  kAny,
};
// Removes the expected part from the directory, or nothing at all: DATA_LOSS where another one is
// there, NOT_FOUND where there is none. A removal that was cut short is continued. A directory that
// is a symbolic link goes with what it leads to.
absl::Status remove_part(const std::string& directory, const ArchivePartId& expected,
                         Removable what);

// Removes the files of whatever part is there: the manifest loses its name first, durably, and what
// tells the part's identity goes last. Files that are not of an archive stay. NOT_FOUND when there
// is none.
absl::Status delete_archive(const std::string& directory);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_PART_IDENTITY_H_
