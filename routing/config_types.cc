// What the configuration's types can do by themselves: address ranges, names, sums.

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "routing/config_reader.h"
#include "routing/snapshot.h"

namespace pointsman::routing {
namespace {

constexpr std::uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};  // RFC 4291 section 2.5.5.2
constexpr std::size_t kMaxHostBytes = 253;
constexpr std::size_t kMaxLabelBytes = 63;

/// Descriptors that do not grow with connections: standard streams, log, signals, file watches, admin clients.
constexpr std::uint64_t kProcessDescriptors = 64;
/// Of a worker beside its listeners: epoll, wake-up, the spare descriptor, cancel dials.
constexpr std::uint64_t kWorkerDescriptors = 16;
constexpr std::uint64_t kMostProbes = 256;
/// Of a branch whose members are not listed: some members and what asks for them.
constexpr std::uint64_t kDiscoveredProbes = 8;
constexpr std::uint32_t kDefaultMaxConnections = 20'000;

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::uint64_t fixed_descriptors(const Config& config, unsigned workers) {
  std::uint64_t members = 0;
  for (const auto& [name, branch] : config.branches)
    members += branch->discover ? kDiscoveredProbes : branch->members.size();
  const std::uint64_t consoles = config.console.listeners.empty() ? 0
                                                                  : config.console.listeners.size() +
                                                                        config.console.max_connections + kConsoleLogins;
  return kProcessDescriptors + workers * (config.listeners.size() + kWorkerDescriptors) +
         std::min(members, kMostProbes) + consoles;
}

}  // namespace

bool Cidr::contains(const std::uint8_t (&ipv6_mapped)[16]) const {
  const bool is_ipv4 = std::memcmp(ipv6_mapped, kMappedPrefix, sizeof kMappedPrefix) == 0;
  // ::/0 means every IPv6 address; that IPv4 is written inside that space here is our affair.
  if (is_ipv4 && prefix_bits < 96) return false;
  const std::size_t whole = prefix_bits / 8;
  if (std::memcmp(address, ipv6_mapped, whole) != 0) return false;
  const unsigned rest = prefix_bits % 8u;
  if (rest == 0) return true;
  return ((address[whole] ^ ipv6_mapped[whole]) >> (8 - rest)) == 0;
}

std::optional<Cidr> Cidr::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const SocketAddress ip = SocketAddress::from_numeric(std::string(text.substr(0, slash)), 0);
  if (!ip.known()) return std::nullopt;
  const bool ipv4 = ip.base.sa_family == AF_INET;
  std::uint8_t bits = ipv4 ? 32 : 128;
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    std::uint8_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool leading_zero = digits.size() > 1 && digits.front() == '0';
    if (error != std::errc{} || end != digits.data() + digits.size() || value > bits || leading_zero)
      return std::nullopt;
    bits = value;
  }
  Cidr range;
  ip.mapped_ip(range.address);
  range.prefix_bits = static_cast<std::uint8_t>(bits + (ipv4 ? 96 : 0));
  for (unsigned bit = range.prefix_bits; bit < 128; ++bit) {
    if ((range.address[bit / 8] & (0x80u >> (bit % 8))) != 0) return std::nullopt;  // 10.0.0.1/8: which one was meant?
  }
  return range;
}

std::string BackendTlsConfig::context_key() const {
  // Paths contain no line feed: the reader refuses control characters.
  return std::to_string(static_cast<int>(mode)) + "\n" + ca + "\n" + certificate + "\n" + key;
}

const PoolConfig* BranchConfig::find_pool(std::string_view pool) const {
  const auto found = std::find_if(pools.begin(), pools.end(), [&](const PoolConfig& p) { return p.name == pool; });
  return found == pools.end() ? nullptr : &*found;
}

std::string ConfigError::to_string() const {
  return path.empty() ? file + ": " + what : file + ": " + path + ": " + what;
}

std::uint64_t descriptors_needed(const Config& config, std::uint32_t max_connections, unsigned workers) {
  return 2 * std::uint64_t{max_connections} + fixed_descriptors(config, workers);
}

std::uint32_t default_max_connections(const Config& config, std::uint64_t descriptors, unsigned workers) {
  const std::uint64_t fixed = fixed_descriptors(config, workers);
  const std::uint64_t fitting = descriptors > fixed ? (descriptors - fixed) / 2 : 0;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(fitting, 1, kDefaultMaxConnections));
}

bool is_numeric_address(const std::string& text) {
  return SocketAddress::from_numeric(text, 0).known();
}

bool is_host(std::string_view text) {
  if (text.empty() || text.size() > kMaxHostBytes) return false;
  if (is_numeric_address(std::string(text))) return true;
  return is_alphanumeric(text.front()) && std::all_of(text.begin(), text.end(), [](char c) {
           return is_alphanumeric(c) || c == '-' || c == '.' || c == '_';
         });
}

bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  const SocketAddress address = SocketAddress::from_numeric(host, 0);
  if (!address.known()) return false;
  std::uint8_t ip[16];
  address.mapped_ip(ip);
  if (std::memcmp(ip, kMappedPrefix, sizeof kMappedPrefix) == 0) return ip[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&address.v6.sin6_addr);
}

bool is_label(std::string_view text) {
  return !text.empty() && text.size() <= kMaxLabelBytes && is_alphanumeric(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return is_alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

}  // namespace pointsman::routing
