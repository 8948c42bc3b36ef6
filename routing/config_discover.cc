// `discover`: where the members of a branch are asked for, instead of `members`.

#include <array>
#include <charconv>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::size_t kMaxUrls = 16;
constexpr std::size_t kMaxUrlBytes = 1024;
constexpr std::string_view kServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/";
constexpr std::array<std::pair<std::string_view, AddressFamily>, 3> kFamilies = {
    {{"any"sv, AddressFamily::kAny}, {"ipv4"sv, AddressFamily::kIpv4}, {"ipv6"sv, AddressFamily::kIpv6}}};

/// RFC 1123 label, as names of namespaces and services are; part of a URL.
bool is_kubernetes_name(std::string_view text) {
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (text.empty() || text.size() > 63 || !inner(text.front()) || !inner(text.back())) return false;
  for (const char c : text) {
    if (!inner(c) && c != '-') return false;
  }
  return true;
}

constexpr TextRule kKubernetesName{
    .form = {.title = "name of a Kubernetes object", .pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
    .holds = [](const std::string& text) { return is_kubernetes_name(text); },
    .complaint = "is not allowed; 1 to 63 of a-z 0-9 - with a letter or digit at both ends is"};
constexpr TextRule kDnsName{.form = kHost.form,
                            .holds = [](const std::string& text) { return is_host(text) && !is_numeric_address(text); },
                            .complaint = "is no host name",
                            .quotes_value = true};
constexpr TextForm kUrl{.title = "URL", .pattern = "^https?://", .most = kMaxUrlBytes};
constexpr TextForm kHttpsUrl{.title = "URL", .pattern = "^https://", .most = kMaxUrlBytes};
constexpr Shape kUrls{.kind = Shape::Kind::kTexts, .least = 1, .most = kMaxUrls, .text = kUrl};

void read_ca(ObjectReader& reader, const Key& key, std::string& out, ConfigFiles& files) {
  if (!reader.read_text(key, out, kFile)) return;
  if (const auto& fault = files.certificate_fault(out)) reader.error("ca", *fault);
}

bool is_path(std::string_view path) {
  for (const char c : path) {
    const bool lawful = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' ||
                        c == '-' || c == '.' || c == '_' || c == '~';
    if (!lawful) return false;
  }
  return true;
}

/// What every source takes beside its own.
void read_common(ObjectReader& reader, DiscoverConfig& out) {
  reader.read_number({"pgbouncer_port", "The PgBouncer beside each member. Without it: none, or as the source says."},
                     out.pgbouncer_port, 1, 65535);
  reader.read_text({"zone", "Of members whose source names none."}, out.zone, kLabel);
}

DnsDiscovery read_dns(ObjectReader& reader) {
  DnsDiscovery dns;
  reader.require("name", "a host name");
  reader.read_text({"name", "Each of its addresses is a member. Looked up as the machine's resolver does."}, dns.name,
                   kDnsName);
  reader.read_number({"port", "PostgreSQL's."}, dns.port, 1, 65535);
  reader.read_choice<AddressFamily>(
      {"family", "One of them where a name has both for the same servers: one server must not be two members."},
      dns.family, kFamilies);
  reader.read_duration({"interval", "How often it is looked up."}, dns.interval, 200ms, 1h);
  return dns;
}

void read_urls(const Json& value, const JsonPath& path, const ErrorSink& sink, PatroniDiscovery& out) {
  const auto* array = as_array(value, path, sink, kMaxUrls);
  if (array == nullptr) return;
  if (array->empty()) sink.add(path, "is empty; at least one URL is needed");
  for (std::size_t i = 0; i < array->size(); ++i) {
    const auto* text = (*array)[i].get_ptr<const std::string*>();
    auto url = text == nullptr ? std::nullopt : HttpUrl::parse(*text);
    if (url) {
      out.urls.push_back(*std::move(url));
    } else {
      sink.add(JsonPath(path, i),
               describe((*array)[i]) + " is no URL; \"http://host:8008\" or \"https://host:8008\" is");
    }
  }
}

PatroniDiscovery read_patroni(ObjectReader& reader, ConfigFiles& files) {
  PatroniDiscovery patroni;
  reader.require("urls", "an array with at least one URL");
  if (const Json* urls = reader.find(
          {"urls", "Patroni's REST interface on the nodes, asked one after the other until one answers."}, kUrls))
    read_urls(*urls, reader.path_of("urls"), reader.sink(), patroni);
  read_ca(reader, {"ca", "For https, PEM. Without it the system's store."}, patroni.ca, files);
  reader.read_duration({"interval", "How often it is asked; at once when a probe sees a change."}, patroni.interval,
                       200ms, 1h);
  return patroni;
}

KubernetesDiscovery read_kubernetes(ObjectReader& reader, ConfigFiles& files) {
  KubernetesDiscovery kubernetes;
  reader.require("namespace", "the namespace of the service");
  reader.read_text({"namespace", "Of the services."}, kubernetes.namespace_name, kKubernetesName);
  reader.require("service", "the name of a service that has all members");
  reader.read_text({"service", "A service that selects all members; its EndpointSlices are watched."},
                   kubernetes.service, kKubernetesName);
  reader.read_text(
      {"leader_service", "The service of the primary: its one ready endpoint has a veto on who is primary."},
      kubernetes.leader_service, kKubernetesName);
  reader.read_text(
      {"port_name", "Which of a slice's ports is PostgreSQL's. Without it `postgres`, `postgresql` or the only one."},
      kubernetes.port_name, kKubernetesName);
  reader.read_text({"pgbouncer_port_name", "Which of them is the PgBouncer's."}, kubernetes.pgbouncer_port_name,
                   kKubernetesName);
  reader.read_number({"port", "For slices without ports."}, kubernetes.port, 1, 65535);
  std::string api;
  if (reader.read_text({"api", "https://host:port. Without it as the pod's environment says."}, api, kHttpsUrl)) {
    kubernetes.api = HttpUrl::parse(api);
    if (!kubernetes.api || !kubernetes.api->tls)
      reader.error("api", "\"" + escape_for_log(api) + "\" is not allowed; \"https://host:6443\" is");
  }
  kubernetes.ca = std::string(kServiceAccount) + "ca.crt";
  kubernetes.token_file = std::string(kServiceAccount) + "token";
  read_ca(reader, {"ca", "Of the API server, PEM."}, kubernetes.ca, files);
  reader.read_text({"token_file", "The service account's token, read for every request."}, kubernetes.token_file,
                   kFile);
  return kubernetes;
}

}  // namespace

std::optional<HttpUrl> HttpUrl::parse(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return std::nullopt;
  HttpUrl url;
  if (text.starts_with("https://")) {
    url.tls = true;
    text.remove_prefix(8);
  } else if (text.starts_with("http://")) {
    text.remove_prefix(7);
  } else {
    return std::nullopt;
  }
  const std::size_t slash = std::min(text.find('/'), text.size());
  std::string_view authority = text.substr(0, slash);
  url.path = std::string(text.substr(slash));
  while (url.path.ends_with('/')) url.path.pop_back();
  std::string_view port;
  bool port_given = false;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    url.host = std::string(authority.substr(1, end - 1));
    const std::string_view rest = authority.substr(end + 1);
    if (!is_numeric_address(url.host) || (!rest.empty() && rest.front() != ':')) return std::nullopt;
    port_given = !rest.empty();
    if (port_given) port = rest.substr(1);
  } else {
    const std::size_t colon = authority.find(':');
    url.host = std::string(authority.substr(0, colon));
    if (url.host.find(':') != std::string::npos) return std::nullopt;
    port_given = colon != std::string_view::npos;
    if (port_given) port = authority.substr(colon + 1);
  }
  url.port = url.tls ? 443 : 80;
  if (port_given) {
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc{} || end != port.data() + port.size() || url.port == 0) return std::nullopt;
  }
  if (!is_host(url.host) || !is_path(url.path)) return std::nullopt;
  return url;
}

std::string HttpUrl::to_string() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return (tls ? "https://" : "http://") + (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port) + path;
}

DiscoverConfig read_discover(const Json& value, const JsonPath& path, const ErrorSink& sink, ConfigFiles& files) {
  DiscoverConfig discover;
  ObjectReader reader(value, path, sink);
  int sources = 0;
  // Patroni may also be given by its URLs alone.
  const Json* patroni =
      reader.find_object({"patroni", "Patroni's REST interface, GET /cluster; an array of its URLs does as well."});
  reader.allow_also("patroni", kUrls);
  if (patroni != nullptr && patroni->is_array()) {
    ++sources;
    PatroniDiscovery found;
    read_urls(*patroni, reader.path_of("patroni"), sink, found);
    discover.source = std::move(found);
  } else if (patroni != nullptr) {
    ++sources;
    const JsonPath inner_path = reader.path_of("patroni");
    ObjectReader inner(*patroni, inner_path, sink);
    discover.source = read_patroni(inner, files);
    read_common(inner, discover);
    inner.finish();
  }
  if (const Json* dns = reader.find_object({"dns", "Every address of a name is a member."})) {
    ++sources;
    const JsonPath inner_path = reader.path_of("dns");
    ObjectReader inner(*dns, inner_path, sink);
    discover.source = read_dns(inner);
    read_common(inner, discover);
    inner.finish();
  }
  if (const Json* kubernetes = reader.find_object({"kubernetes", "The endpoints of a service are the members."})) {
    ++sources;
    const JsonPath inner_path = reader.path_of("kubernetes");
    ObjectReader inner(*kubernetes, inner_path, sink);
    discover.source = read_kubernetes(inner, files);
    read_common(inner, discover);
    inner.finish();
  }
  if (sources != 1 && value.is_object())
    sink.add(path, std::string(sources == 0 ? "names no source" : "names more than one source") +
                       "; one of \"dns\", \"kubernetes\", \"patroni\" is allowed");
  reader.finish();
  return discover;
}

}  // namespace pointsman::routing
