#pragma once
// The files a configuration names: read at most once per load, permissions of secrets checked, all remembered to be
// watched. Internal to routing's configuration reader; control thread only.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/secret.h"
#include "routing/userlist.h"

namespace pointsman::routing {

inline constexpr std::size_t kMaxConfigBytes = 64 * 1024 * 1024;
inline constexpr std::size_t kMaxSecretBytes = 64 * 1024;
inline constexpr std::size_t kMaxUserlistBytes = 16 * 1024 * 1024;

/// FNV-1a over parts, each with its length: tells whether a branch means the same as before. No protection against an
/// opponent: whoever writes the configuration has nothing to forge.
class Fingerprint {
 public:
  void add(std::string_view part) {
    add(part.size());
    for (const char c : part) mix(static_cast<std::uint8_t>(c));
  }
  void add(std::uint64_t number) {
    for (int i = 0; i < 8; ++i) mix(static_cast<std::uint8_t>(number >> (8 * i)));
  }
  std::uint64_t value() const { return hash_; }

 private:
  void mix(std::uint8_t byte) { hash_ = (hash_ ^ byte) * 0x100000001B3u; }
  std::uint64_t hash_ = 0xCBF29CE484222325u;
};

/// A file's text; the error says why not. Refuses what is no regular file and more than `most` bytes.
base::Result<std::string> read_file(const std::string& path, std::size_t most);

class ConfigFiles {
 public:
  struct Secret {
    base::SecretString text;
    std::uint64_t digest = 0;
  };
  struct Users {
    std::shared_ptr<const Userlist> list;
    std::uint64_t digest = 0;
  };

  /// A password, token or the like: one trailing newline dropped, not empty, no zero byte; 0600 when the file is ours,
  /// up to 0640 when it is root's (contract section 5). The reference stays valid.
  const base::Result<Secret>& secret(const std::string& path);
  /// A userlist, under the same permissions.
  const base::Result<Users>& userlist(const std::string& path);
  /// What is wrong with a certificate file, or with a private key (permissions as a secret's), as far as one can say
  /// without reading PEM.
  const std::optional<std::string>& certificate_fault(const std::string& path);
  const std::optional<std::string>& key_fault(const std::string& path);

  void watch(std::string path) { watched_.insert(std::move(path)); }
  const std::set<std::string>& watched() const { return watched_; }

 private:
  std::map<std::string, base::Result<Secret>> secrets_;
  std::map<std::string, base::Result<Users>> userlists_;
  std::map<std::string, std::optional<std::string>> certificates_;
  std::map<std::string, std::optional<std::string>> keys_;
  std::set<std::string> watched_;
};

}  // namespace pointsman::routing
