#pragma once
// GET, PUT and DELETE of one branch of branches_dir, as plain data: what the admin endpoint asks of the router.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace pointsman::proxy {

struct BranchEdit {
  enum class Kind : std::uint8_t { kRead, kWrite, kRemove };
  Kind kind = Kind::kRead;
  std::string branch;
  std::string text;       ///< with kWrite: the branch's object, as it would stand in the file
  std::string if_match;   ///< only when the stored one has this ETag; "*": only when there is one; empty: in any case
  bool only_new = false;  ///< If-None-Match: *
};

struct BranchEditAnswer {
  enum class Outcome : std::uint8_t {
    kRead,
    kCreated,
    kReplaced,
    kRemoved,
    kNotFound,
    kConflict,      ///< no branches_dir, or the branch stands in the configuration file itself
    kPrecondition,  ///< If-Match or If-None-Match says no
    kInvalid,       ///< `errors` say what `pointsman check` would
    kBusy,          ///< too many edits wait
    kFailed,        ///< the file could not be read or written
  };
  Outcome outcome = Outcome::kFailed;
  std::string text;  ///< kRead: the file; otherwise what happened, for a person
  std::string etag;  ///< of what is stored now, with its quotes; empty: nothing is
  std::vector<std::string> errors;
};
using BranchEditDone = std::function<void(const BranchEditAnswer&)>;

}  // namespace pointsman::proxy
