#pragma once
// How an SQL operation of our own failed. Plain data.

#include <cstdint>
#include <string>

namespace pointsman::proxy {

struct PgFailure {
  enum class Kind : std::uint8_t {
    kTimeout,      ///< the deadline passed
    kNetwork,      ///< refused, reset, closed, or what answers does not speak the protocol
    kTls,          ///< no TLS there, or its certificate was not accepted: the operator's affair
    kCredentials,  ///< the server wants a login that we do not do, or have nothing for: the operator's affair
    kServer,       ///< the server said so; `sqlstate` is set unless it named none
  };
  Kind kind = Kind::kNetwork;
  std::string sqlstate;  ///< five characters, or empty
  std::string text;      ///< one line for the log, escaped

  /// The first two characters of the SQLSTATE: "28" for every refused login.
  bool in_class(const char (&two)[3]) const { return sqlstate.compare(0, 2, two) == 0; }
};

}  // namespace pointsman::proxy
