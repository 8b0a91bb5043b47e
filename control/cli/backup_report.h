// Backups as JSON and as text.
#ifndef SLUICE_CONTROL_CLI_BACKUP_REPORT_H_
#define SLUICE_CONTROL_CLI_BACKUP_REPORT_H_

#include <string>

#include "control/cli/outcome.h"
#include "control/client/results.h"
#include "control/restore/results.h"

namespace sluice {

Json backup_json(const BackupView& view);
// `stages` and `bottleneck`.
void add_stages(const std::vector<StageReport>& stages, Json* json);
// "disk of n3, 91% busy"; empty when nothing is known.
std::string bottleneck_text(const std::vector<StageReport>& stages);
std::string backup_text(const BackupView& view);
Json verify_json(const VerifyResult& result);
Json restore_json(const RestoreOutcome& result);
std::string restore_text(const RestoreOutcome& result);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_BACKUP_REPORT_H_
