#include "protocol/cancel_key.h"

#include <openssl/crypto.h>

namespace pointsman::protocol {

bool secrets_equal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace pointsman::protocol
