// Which folders others may name: those of archives, directly under this node's archive folder.
#ifndef SLUICE_CONTROL_SERVICE_ARCHIVE_FOLDER_H_
#define SLUICE_CONTROL_SERVICE_ARCHIVE_FOLDER_H_

#include <string>

#include "absl/status/status.h"
#include "control/service/node_context.h"

namespace sluice {

// PERMISSION_DENIED for any other folder.
absl::Status check_archive_folder(const NodeContext& context, const std::string& folder);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_ARCHIVE_FOLDER_H_
