#include "base/arena.h"
#include "base/status.h"
#include "dataplane/block/record_batch.h"
#include "dataplane/pipeline/record_writes.h"
#include "dataplane/pipeline/write_lots.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/envelope.h"
#include "dataplane/stream/hello.h"
#include "tests/dataplane/block/records.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

// The first byte says which reader it is for.
std::string input_of(char reader, std::string_view bytes) {
  return std::string(1, reader).append(bytes);
}

std::string some_hello() {
  Hello hello;
  hello.cluster = "00000000-0000-4000-8000-000000000000";
  hello.node = "n1";
  hello.target = "n2";
  hello.job = "nightly";
  hello.kind = StreamKind::kBackupAgreed;
  hello.attempt = 3;
  return hello.encode();
}

std::vector<std::string> envelopes() {
  const auto arena = Arena::create({.bytes = kBufferBytes});
  const auto pool = (*arena)->make_pool("fuzz", 1);
  BlockBuffer buffer = (*pool)->try_take();
  std::vector<std::string> made;
  for (uint16_t kind = 1; kind <= kLastMessageKind; ++kind) {
    Envelope envelope;
    envelope.kind = static_cast<MessageKind>(kind);
    envelope.payload_bytes = kind * 4u;
    envelope.attempt = kind;
    if (envelope.kind == MessageKind::kLotEnd) envelope.lot = 5;
    if (envelope.kind == MessageKind::kRecordWrite) envelope.version_override = 77;
    std::fill_n(buffer.data(), envelope.payload_bytes, uint8_t{7});
    const uint32_t bytes = Envelope::seal(envelope, buffer);
    made.emplace_back(reinterpret_cast<const char*>(buffer.data()), bytes);
  }
  return made;
}

std::string some_batch() {
  std::string memory(64 << 10, '\0');
  RecordBatchBuilder builder;
  builder.begin({reinterpret_cast<uint8_t*>(memory.data()), memory.size()});
  Random random(1);
  RecordShape shape;
  shape.count = 6;
  for (const Record& record : make_records(random, 1, 1, shape)) builder.add(record.view());
  memory.resize(builder.finish());
  return memory;
}

std::string some_answer() {
  ApplyAnswer answer;
  answer.token = "token";
  answer.sequence = 9;
  answer.missed_cut = 8;
  return answer.encode();
}

std::string some_write_reply() {
  RecordWriteReply reply;
  reply.reason = "n2 does not answer";
  reply.as_of = 17;
  return reply.encode();
}

std::string some_reply() {
  WriteReply reply;
  reply.changed = 3;
  reply.failures.push_back({"n2", unavailable("it is gone")});
  reply.holders.push_back({"n1", "store", 7});
  reply.kept = {{1, {2, 1, 0}}, {9, {4, 4, 7}}};
  return reply.encode();
}

TEST(Fuzz, ReadersOfMessagesSurviveMutations) {
  std::vector<std::string> inputs = {input_of(0, some_hello()),
                                     input_of(2, encode_status(absl::OkStatus())),
                                     input_of(2, encode_status(data_loss("a block is damaged"))),
                                     input_of(3, encode_slots(std::vector<uint32_t>{1, 5, 3})),
                                     input_of(4, some_batch()),
                                     input_of(5, some_answer()),
                                     input_of(5, some_write_reply()),
                                     input_of(6, LotEnd{"n1", 3, 17}.encode()),
                                     input_of(7, some_reply()),
                                     input_of(7, WriteReply().encode())};
  for (const std::string& envelope : envelopes()) inputs.push_back(input_of(1, envelope));
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing
