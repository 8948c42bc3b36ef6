// Parts of a branch that need no file, and what they share with listeners.

#include <algorithm>
#include <array>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::size_t kMaxLabels = 16;
constexpr std::size_t kMaxRanges = 1024;
constexpr std::array<std::pair<std::string_view, bool>, 2> kOnPromotion = {{{"keep"sv, false}, {"end"sv, true}}};
constexpr std::array<std::pair<std::string_view, Fallback>, 3> kFallbacks = {
    {{"least_lagged"sv, Fallback::kLeastLagged}, {"primary"sv, Fallback::kPrimary}, {"error"sv, Fallback::kError}}};
constexpr base::Duration kLongest = 24h;

}  // namespace

const Json::array_t* read_ranges(ObjectReader& reader, const Key& key, std::size_t least, std::vector<Cidr>& out) {
  constexpr TextForm kRange{.title = "address range", .pattern = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"};
  const Json* value = reader.find(key, Shape::texts(kRange, least, kMaxRanges));
  if (value == nullptr) return nullptr;
  const JsonPath path = reader.path_of(key.name);
  const auto* array = as_array(*value, path, reader.sink(), kMaxRanges);
  for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
    const auto* text = (*array)[i].get_ptr<const std::string*>();
    const auto range = text == nullptr ? std::nullopt : Cidr::parse(*text);
    if (range) {
      out.push_back(*range);
    } else {
      reader.sink().add(JsonPath(path, i),
                        describe((*array)[i]) +
                            " is no address range; \"10.0.0.0/8\" or \"2001:db8::/32\" is, with zero "
                            "bits behind the prefix");
    }
  }
  return array;
}

void read_labels(ObjectReader& branch, BranchConfig& out) {
  constexpr TextForm kName{.title = {}, .pattern = "^(?!__|branch$)[A-Za-z_][A-Za-z0-9_]{0,62}$"};
  const Json* value = branch.find({"labels", "Yours; they appear in the metric pointsman_branch_info."},
                                  {.kind = Shape::Kind::kTextMap, .most = kMaxLabels, .text = kName});
  if (value == nullptr) return;
  const JsonPath path = branch.path_of("labels");
  const auto* object = value->get_ptr<const Json::object_t*>();
  if (object == nullptr) return branch.sink().add(path, describe(*value) + " is no object");
  if (object->size() > kMaxLabels)
    return branch.sink().add(path, "more than " + std::to_string(kMaxLabels) + " labels");
  for (const auto& [key, text] : *object) {
    // The rule of Prometheus for label names; `branch` is taken (branch_info) and `__` belongs to Prometheus.
    const bool good = !key.empty() && key.size() <= kIdentifier.most && !(key.front() >= '0' && key.front() <= '9') &&
                      !key.starts_with("__") && key != "branch" && std::all_of(key.begin(), key.end(), [](char c) {
                        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
                      });
    const auto* label = text.get_ptr<const std::string*>();
    if (!good) {
      branch.sink().add(JsonPath(path, key),
                        "is no label name; a-z A-Z 0-9 _ are allowed, no digit and no __ first, and not \"branch\"");
    } else if (label == nullptr || label->size() > 256) {
      branch.sink().add(JsonPath(path, key), describe(text) + " is not allowed; a text of at most 256 bytes is");
    } else {
      out.labels.emplace(key, *label);
    }
  }
}

void read_replicas(ObjectReader& branch, BranchConfig& out) {
  const Json* value = branch.find_object({"replicas", "Which replica is fresh enough."});
  if (value == nullptr) return;
  const JsonPath path = branch.path_of("replicas");
  ObjectReader reader(*value, path, branch.sink());
  ReplicaPolicy& policy = out.replicas;
  reader.read_duration({"max_lag", "How far behind a replica may be."}, policy.max_lag, 1ms, kLongest);
  std::uint64_t bytes = 0;
  if (reader.read_number({"max_lag_bytes", "And in bytes of WAL. Without it no limit."}, bytes, 1,
                         std::uint64_t{1} << 50))
    policy.max_lag_bytes = bytes;
  reader.read_choice<Fallback>({"fallback", "Where to when no replica qualifies."}, policy.fallback, kFallbacks);
  reader.read_duration({"lag_hard_cap", "least_lagged goes no further than this; at least max_lag."},
                       policy.lag_hard_cap, 1ms, kLongest);
  reader.read_number({"samples_out", "How many samples above the limit take a replica out."}, policy.samples_out, 1,
                     100);
  reader.read_number({"samples_in", "How many below 60 % of it bring it back."}, policy.samples_in, 1, 100);
  reader.read_choice<bool>(
      {"on_promotion", "Sessions of a replica that becomes the primary: they stay, or end when idle next (57P01)."},
      policy.end_on_promotion, kOnPromotion);
  if (policy.lag_hard_cap < policy.max_lag) {
    reader.error("lag_hard_cap", format_duration(policy.lag_hard_cap) + " is not allowed; max_lag (" +
                                     format_duration(policy.max_lag) + ") or more is");
  }
  reader.finish();
}

void read_failover(ObjectReader& branch, BranchConfig& out) {
  const Json* value = branch.find_object({"failover", "When the primary is lost or another one takes over."});
  if (value == nullptr) return;
  const JsonPath path = branch.path_of("failover");
  ObjectReader reader(*value, path, branch.sink());
  reader.read_duration({"hold_timeout", "How long a login waits for a primary or a replica before it is told 57P03."},
                       out.failover.hold_timeout, 0ms, 10min);
  reader.read_number({"dead_after", "So many failed probes, and a member gets no new sessions."},
                     out.failover.dead_after, 1, 100);
  reader.read_duration(
      {"grace", "How long a session that is not idle may stay on a server that was demoted or taken out."},
      out.failover.grace, 0ms, kLongest);
  reader.finish();
}

void read_access(ObjectReader& branch, BranchConfig& out) {
  const Json* value = branch.find_object({"access", "Who may connect at all. Without it everybody."});
  if (value == nullptr) return;
  const JsonPath path = branch.path_of("access");
  ObjectReader reader(*value, path, branch.sink());
  if (const auto* allow = read_ranges(reader, {"allow", "Client addresses that may connect."}, 1, out.allow)) {
    if (allow->empty()) reader.error("allow", "is empty and would let nobody in; leave it out to let everybody in");
  }
  if (const Json* endpoints = reader.find({"private_endpoints", "Not in this version."}, Shape::texts({}, 0, 0))) {
    if (!endpoints->is_array() || !endpoints->empty())
      reader.error("private_endpoints", "not in this version; [] is allowed");
  }
  reader.finish();
}

}  // namespace pointsman::routing
