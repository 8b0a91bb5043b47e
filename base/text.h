// Base64 (RFC 4648, the standard alphabet, padded), text forms of bytes that may not be UTF-8, and
// of moments.
#ifndef SLUICE_BASE_TEXT_H_
#define SLUICE_BASE_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

std::string base64_encode(std::string_view bytes);
// Strict: padding needed, no white space, unused bits zero; false otherwise.
bool base64_decode(std::string_view text, std::string* bytes);

// Whether the bytes are well-formed UTF-8 (Unicode 15, table 3-7: no surrogates, no overlong
// forms).
bool is_utf8(std::string_view bytes);

// The bytes for a human: UTF-8 as it is, control characters and whatever is not UTF-8 as \xNN. Cut
// after `limit` bytes of input, with "..." then.
std::string printable(std::string_view bytes, size_t limit = 256);

// "2026-03-01 12:00:05", in UTC; empty up to the Unix epoch.
std::string utc_text(int64_t unix_ms);

}  // namespace sluice

#endif  // SLUICE_BASE_TEXT_H_
