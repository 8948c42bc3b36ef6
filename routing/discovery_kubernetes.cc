// EndpointSlices of Kubernetes: the API reference of discovery.k8s.io/v1, and "Efficient detection of changes" of the
// API concepts for lists, watches, bookmarks and 410 Gone.

#include <algorithm>
#include <utility>

#include "routing/config_reader.h"
#include "routing/discovery_collect.h"

namespace pointsman::routing {
namespace {

constexpr std::size_t kMaxSlices = 512;
/// The API's own limit of one slice.
constexpr std::size_t kMaxSliceEndpoints = 1000;
constexpr std::size_t kMaxKubernetesName = 253;
constexpr std::string_view kServiceLabel = "kubernetes.io/service-name";
constexpr int kGone = 410;

std::optional<std::string> short_text(const Json* value, std::string_view key, std::size_t most = kMaxKubernetesName) {
  const std::string* text = text_at(value, key);
  if (text == nullptr || text->empty() || text->size() > most) return std::nullopt;
  return *text;
}

bool is_tcp(const Json& port) {
  const std::string* protocol = text_at(&port, "protocol");
  return protocol == nullptr || *protocol == "TCP";
}

/// The number of the port with one of these names; 0: none has.
std::uint16_t port_called(const Json::array_t* ports, std::initializer_list<std::string_view> names) {
  if (ports == nullptr) return 0;
  for (const std::string_view wanted : names) {
    for (const Json& port : *ports) {
      const std::string* name = text_at(&port, "name");
      if (is_tcp(port) && wanted == (name == nullptr ? std::string_view() : std::string_view(*name)))
        return port_at(&port, "port");
    }
  }
  return 0;
}

/// Where PostgreSQL listens on a slice's endpoints; 0: the slice does not say.
std::uint16_t server_port(const Json::array_t* ports, const KubernetesDiscovery& wanted) {
  if (ports == nullptr || ports->empty()) return wanted.port;  // a headless service without ports
  if (!wanted.port_name.empty()) return port_called(ports, {wanted.port_name});
  if (const std::uint16_t named = port_called(ports, {"postgres", "postgresql"}); named != 0) return named;
  return ports->size() == 1 && is_tcp(ports->front()) ? port_at(&ports->front(), "port") : std::uint16_t{0};
}

}  // namespace

struct EndpointSlices::Slice {
  struct Endpoint {
    DiscoveredMember member;  // the name is empty when no object stands behind it
    bool serving = true;
  };
  bool of_leader = false;
  bool ipv6 = false;
  bool port_known = true;
  std::vector<Endpoint> endpoints;
};

EndpointSlices::EndpointSlices(KubernetesDiscovery wanted) : wanted_(std::move(wanted)) {}
EndpointSlices::~EndpointSlices() = default;

namespace {

struct SliceKey {
  std::string name;
  std::string service;
};

/// Name and service of a slice; the service is empty when it belongs to none.
std::optional<SliceKey> read_key(const Json& object) {
  const Json* metadata = child(&object, "metadata");
  const auto name = short_text(metadata, "name");
  if (!name) return std::nullopt;
  return SliceKey{*name, short_text(child(metadata, "labels"), kServiceLabel).value_or("")};
}

std::string version_of(const Json& object) {
  // Opaque to clients, put back into a URL by us: only what every server of today gives is taken.
  const auto version = short_text(child(&object, "metadata"), "resourceVersion", 64);
  const bool lawful =
      version && std::all_of(version->begin(), version->end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
      });
  return lawful ? *version : std::string();
}

/// One endpoint without its ports. Nothing: no address, or unlawful.
template <typename Endpoint>
std::optional<Endpoint> read_endpoint(const Json& value) {
  // "Consumers must handle different types of addresses in the context of their own capabilities"; they are fungible.
  const auto* addresses = array_at(&value, "addresses");
  if (addresses == nullptr || addresses->empty()) return std::nullopt;
  const auto* address = addresses->front().template get_ptr<const std::string*>();
  if (address == nullptr || address->size() > kMaxKubernetesName) return std::nullopt;
  Endpoint endpoint;
  endpoint.member.host = *address;
  endpoint.member.name = short_text(child(&value, "targetRef"), "name").value_or("");
  endpoint.member.zone = short_text(&value, "zone").value_or("");
  const Json* conditions = child(&value, "conditions");
  // "A nil value should be interpreted as true" for ready and serving, and as false for terminating.
  endpoint.member.ready = flag_at(conditions, "ready", true);
  endpoint.serving = flag_at(conditions, "serving", endpoint.member.ready);
  endpoint.member.terminating = flag_at(conditions, "terminating", false);
  return endpoint;
}

template <typename Slice, typename Endpoint>
std::optional<std::string> read_slice(const Json& object, const KubernetesDiscovery& wanted, std::string_view service,
                                      Slice& slice) {
  const auto type = short_text(&object, "addressType", 16);
  if (!type) return "a slice has no addressType";
  slice.ipv6 = *type == "IPv6";
  slice.of_leader = !wanted.leader_service.empty() && service == wanted.leader_service;
  const auto* ports = array_at(&object, "ports");
  const std::uint16_t port = server_port(ports, wanted);
  const std::uint16_t pgbouncer =
      wanted.pgbouncer_port_name.empty() ? std::uint16_t{0} : port_called(ports, {wanted.pgbouncer_port_name});
  slice.port_known = port != 0;
  const Json* list = child(&object, "endpoints");
  if (list == nullptr || list->is_null()) return std::nullopt;  // Go writes an empty list like that
  const auto* endpoints = list->template get_ptr<const Json::array_t*>();
  if (endpoints == nullptr || endpoints->size() > kMaxSliceEndpoints) return "a slice's endpoints are no lawful list";
  for (const Json& value : *endpoints) {
    auto endpoint = read_endpoint<Endpoint>(value);
    if (!endpoint) continue;
    endpoint->member.port = port;
    endpoint->member.pgbouncer_port = pgbouncer;
    slice.endpoints.push_back(*std::move(endpoint));
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> EndpointSlices::load_list(std::string_view document) {
  if (document.size() > kMaxSliceList) return "the list is longer than " + std::to_string(kMaxSliceList) + " bytes";
  const ParsedJson parsed = parse_json(document);
  if (!parsed.value) return "the list is no JSON: " + parsed.error;
  const Json* root = &*parsed.value;
  const std::string* kind = text_at(root, "kind");
  if (kind == nullptr || *kind != "EndpointSliceList") return "the answer is no EndpointSliceList";
  if (short_text(child(root, "metadata"), "continue")) return "the list is only the first part of a longer one";
  const std::string version = version_of(*root);
  if (version.empty()) return "the list has no resourceVersion";
  const Json* items = child(root, "items");
  std::map<std::string, Slice> slices;
  if (items != nullptr && !items->is_null()) {
    const auto* array = items->get_ptr<const Json::array_t*>();
    if (array == nullptr) return "the list has no items";
    if (array->size() > kMaxSlices) return "the list has more than " + std::to_string(kMaxSlices) + " slices";
    for (const Json& item : *array) {
      const auto key = read_key(item);
      if (!key) return "a slice has no name";
      if (key->service != wanted_.service && (key->service.empty() || key->service != wanted_.leader_service)) continue;
      Slice slice;
      if (auto error = read_slice<Slice, Slice::Endpoint>(item, wanted_, key->service, slice)) return error;
      slices.insert_or_assign(key->name, std::move(slice));
    }
  }
  slices_ = std::move(slices);
  resource_version_ = version;
  return std::nullopt;
}

EndpointSlices::Applied EndpointSlices::apply(std::string_view event) {
  const auto failed = [](std::string why) { return Applied{Event::kFailed, std::move(why)}; };
  if (event.size() > kMaxWatchEvent)
    return failed("an event is longer than " + std::to_string(kMaxWatchEvent) + " bytes");
  const ParsedJson parsed = parse_json(event);
  if (!parsed.value) return failed("an event is no JSON: " + parsed.error);
  const std::string* type = text_at(&*parsed.value, "type");
  const Json* object = child(&*parsed.value, "object");
  if (type == nullptr || object == nullptr) return failed("an event has no type or no object");
  if (*type == "ERROR") {
    const Json* code = child(object, "code");
    const auto* number = code == nullptr ? nullptr : code->get_ptr<const Json::number_unsigned_t*>();
    const std::string* message = text_at(object, "message");
    return {number != nullptr && *number == kGone ? Event::kExpired : Event::kFailed,
            "the watch ended: " + (message == nullptr ? std::string("no reason given") : escape_for_log(*message))};
  }
  const std::string version = version_of(*object);
  if (version.empty()) return failed("an event has no resourceVersion");
  if (*type == "BOOKMARK") {
    resource_version_ = version;
    return {Event::kBookmark, {}};
  }
  const auto key = read_key(*object);
  if (!key) return failed("a slice has no name");
  const bool ours =
      key->service == wanted_.service || (!key->service.empty() && key->service == wanted_.leader_service);
  if (*type == "DELETED") {
    slices_.erase(key->name);
  } else if (*type == "ADDED" || *type == "MODIFIED") {
    Slice slice;
    if (ours) {
      if (auto error = read_slice<Slice, Slice::Endpoint>(*object, wanted_, key->service, slice))
        return failed(*std::move(error));
      slices_.insert_or_assign(key->name, std::move(slice));
      if (slices_.size() > kMaxSlices) return failed("there are more than " + std::to_string(kMaxSlices) + " slices");
    } else {
      slices_.erase(key->name);
    }
  } else {
    return failed("an event has the unknown type \"" + escape_for_log(*type, 32) + "\"");
  }
  resource_version_ = version;
  return {Event::kChanged, {}};
}

base::Result<Discovered> EndpointSlices::discovered() const {
  MemberCollector collector;
  std::map<std::string, std::string> names;  // of a pod or address, to the member it is
  std::map<std::string, std::string> name_at;
  std::set<std::string> leaders;
  // A dual-stack service has slices of both families with the same pods: IPv4 first, and a pod counts once. Of the two
  // services the members' own comes first.
  for (const int pass : {0, 1, 2, 3}) {
    for (const auto& [slice_name, slice] : slices_) {
      if (slice.ipv6 != (pass % 2 == 1) || slice.of_leader != (pass >= 2)) continue;
      if (!slice.port_known && !slice.endpoints.empty()) {
        collector.problem("slice " + escape_for_log(slice_name, 64) + " has no port that could be PostgreSQL's");
        continue;
      }
      for (const Slice::Endpoint& endpoint : slice.endpoints) {
        if (endpoint.member.terminating && !endpoint.serving) continue;
        DiscoveredMember member = endpoint.member;
        std::string pod = member.name;
        if (pod.empty()) {  // an endpoint that somebody keeps by hand may have no pod, and yet be one's address
          const auto known = name_at.find(member.host);
          pod = known != name_at.end() ? known->second : member_name_of(member.host);
          member.name = pod;
        }
        auto known = names.find(pod);
        if (known == names.end()) {
          const std::string host = member.host;
          const auto added = collector.add(std::move(member));
          if (!added) continue;
          known = names.emplace(pod, *added).first;
          name_at.emplace(host, pod);
        }
        const bool usable = endpoint.member.ready && !endpoint.member.terminating;
        if (slice.of_leader && usable) leaders.insert(known->second);
      }
    }
  }
  if (leaders.size() == 1) {
    collector.found().leader = *leaders.begin();
  } else if (leaders.size() > 1) {
    collector.problem("the leader's service has " + std::to_string(leaders.size()) +
                      " ready endpoints; none is believed");
  }
  return std::move(collector).finish("the services have no endpoint");
}

std::string kubernetes_status_message(std::string_view document) {
  if (document.size() > kMaxWatchEvent) return {};
  const ParsedJson parsed = parse_json(document);
  if (!parsed.value) return {};
  const std::string* kind = text_at(&*parsed.value, "kind");
  const std::string* message = text_at(&*parsed.value, "message");
  return kind != nullptr && *kind == "Status" && message != nullptr ? escape_for_log(*message) : std::string();
}

}  // namespace pointsman::routing
