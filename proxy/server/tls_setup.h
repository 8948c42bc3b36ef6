#pragma once
// Makes the TLS contexts of a configuration. Reads files: control thread only.

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "proxy/server/messages.h"
#include "routing/config.h"

namespace pointsman::proxy {

/// An error, with its JSON path, when the server's certificate or key cannot be used, or the fleet's secrets. Backend
/// contexts that cannot be made are listed in `warnings` and left out: their branches' legs fail with backend_fault
/// while all others work.
base::Result<std::shared_ptr<const TlsContexts>> make_tls_contexts(const routing::Config& config,
                                                                   std::vector<std::string>& warnings);
/// `present`, and what this branch needs beside it. The same object when nothing was missing.
std::shared_ptr<const TlsContexts> with_contexts_of(std::shared_ptr<const TlsContexts> present,
                                                    const routing::BranchConfig& branch,
                                                    std::vector<std::string>& warnings);

}  // namespace pointsman::proxy
