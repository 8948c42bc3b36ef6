// The admin console: its listeners (mode "console" in `listeners`) and the top-level `console`. Both are read before
// anything else may listen on their ports.

#include <algorithm>
#include <array>

#include "routing/config_reader.h"

namespace pointsman::routing {
namespace {

using namespace std::chrono_literals;
using namespace std::string_view_literals;

constexpr std::size_t kMaxUsers = 1000;
constexpr std::uint64_t kMostConsoles = 1000;
constexpr std::uint64_t kMostIterations = 1'000'000;
constexpr std::size_t kMostSaltBytes = 1024;
constexpr std::size_t kKeyBytes = 32;

constexpr std::array<std::pair<std::string_view, ListenerTls>, 3> kListenerTls = {
    {{"required"sv, ListenerTls::kRequired}, {"optional"sv, ListenerTls::kOptional}, {"off"sv, ListenerTls::kOff}}};
constexpr TextForm kUserName{.title = {}, .pattern = "^(?!x-)[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"};
constexpr TextForm kVerifierForm{
    .title = "SCRAM-SHA-256 verifier",
    .pattern = R"(^SCRAM-SHA-256\$[1-9][0-9]{0,6}:[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$)",
    .most = 4096};
constexpr std::array<std::pair<std::string_view, bool>, 1> kConsoleMode = {{{"console"sv, true}}};
constexpr std::array<std::pair<std::string_view, ConsoleRole>, 2> kRoles = {
    {{"admin"sv, ConsoleRole::kAdmin}, {"read"sv, ConsoleRole::kRead}}};

/// The text in front of `mark`, which is taken away with it; nothing when there is no mark.
std::optional<std::string_view> take_until(std::string_view& text, char mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view taken = text.substr(0, at);
  text.remove_prefix(at + 1);
  return taken;
}

/// How many bytes a canonical base64 text stands for (RFC 4648 section 4, unused bits zero); nothing for others.
std::optional<std::size_t> base64_bytes(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const std::string_view digits = text.substr(0, text.size() - padding);
  if (digits.find_first_not_of(kAlphabet) != std::string_view::npos) return std::nullopt;
  const std::size_t unused = padding == 2 ? 16 : padding == 1 ? 4 : 1;
  if (kAlphabet.find(digits.back()) % unused != 0) return std::nullopt;
  return text.size() / 4 * 3 - padding;
}

bool is_iteration_count(std::string_view text) {
  if (text.empty() || text.size() > 7 || text.front() == '0') return false;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value <= kMostIterations;
}

ConsoleUser read_user(const Json& value, const JsonPath& path, const ErrorSink& sink, const std::string& folder,
                      ConfigFiles& files) {
  constexpr std::string_view kForm = "a SCRAM-SHA-256 verifier, as PostgreSQL keeps in pg_authid.rolpassword, is";
  const Key kVerifier("verifier", "A SCRAM-SHA-256 verifier as in pg_authid.rolpassword; or verifier_file.");
  const Key kVerifierFile("verifier_file", "A file that holds the verifier, a secret.");
  ObjectReader reader(value, path, sink);
  ConsoleUser user;
  std::string text;
  std::string file;
  const bool inline_given = reader.find(kVerifier, {.kind = Shape::Kind::kText, .text = kVerifierForm}) != nullptr;
  const bool file_given = reader.find(kVerifierFile, {.kind = Shape::Kind::kText, .text = kFile}) != nullptr;
  if (inline_given == file_given) {
    reader.error("verifier", inline_given ? "stands beside \"verifier_file\"; one of them is allowed"
                                          : "is missing; \"verifier\" or \"verifier_file\" is needed");
  } else if (inline_given && reader.read_text(kVerifier.name, text, kVerifierForm)) {
    if (!is_scram_verifier(text)) reader.error("verifier", "is not allowed; " + std::string(kForm));
    user.verifier = base::SecretString(std::move(text));
  } else if (file_given && reader.read_text("verifier_file", file)) {
    const auto& secret = files.secret(absolute_path(file, folder));
    if (!secret.ok()) {
      reader.error("verifier_file", secret.error());
    } else if (!is_scram_verifier(secret.value().text.reveal())) {
      reader.error("verifier_file", "what stands in it is not allowed; " + std::string(kForm));
    } else {
      user.verifier = secret.value().text;
    }
  }
  reader.require("role", "\"admin\" or \"read\"");
  reader.read_choice<ConsoleRole>({"role", "read: SHOW alone; admin: everything."}, user.role, kRoles);
  reader.finish();
  return user;
}

void read_users(ObjectReader& console, const std::string& folder, ConfigFiles& files, ConsoleConfig& out) {
  console.require("users", "an object: name to verifier and role");
  const Json* users =
      console.find({"users", "Who may log in, by name: 1 to 63 of A-Z a-z 0-9 . _ -, a letter or digit first."},
                   {.kind = Shape::Kind::kMap, .least = 1, .most = kMaxUsers, .text = kUserName, .x_is_yours = true});
  if (users == nullptr) return;
  const auto* object = users->get_ptr<const Json::object_t*>();
  if (object == nullptr) return console.error("users", describe(*users) + " is no object");
  if (object->empty()) return console.error("users", "is empty; nobody could log in");
  if (object->size() > kMaxUsers)
    return console.error("users", "has more than " + std::to_string(kMaxUsers) + " entries");
  const JsonPath path = console.path_of("users");
  for (const auto& [name, value] : *object) {
    if (name.starts_with("x-")) continue;
    const JsonPath here(path, name);
    if (!is_label(name)) console.sink().add(here, "is no user name; " + std::string(kLabelRule));
    out.users.insert_or_assign(name, read_user(value, here, console.sink(), folder, files));
  }
}

}  // namespace

bool is_scram_verifier(std::string_view text) {
  constexpr std::string_view kScheme = "SCRAM-SHA-256$";
  if (!text.starts_with(kScheme)) return false;
  text.remove_prefix(kScheme.size());
  const auto iterations = take_until(text, ':');
  const auto salt = take_until(text, '$');
  const auto stored_key = take_until(text, ':');
  if (!iterations || !salt || !stored_key || !is_iteration_count(*iterations)) return false;
  const auto salt_bytes = base64_bytes(*salt);
  return salt_bytes && *salt_bytes <= kMostSaltBytes && base64_bytes(*stored_key) == kKeyBytes &&
         base64_bytes(text) == kKeyBytes;
}

bool is_console_listener(const Json& listener) {
  if (!listener.is_object()) return false;
  const auto mode = listener.find("mode");
  const auto* text = mode == listener.end() ? nullptr : mode->get_ptr<const std::string*>();
  return text != nullptr && *text == "console";
}

ConsoleListener read_console_listener(const Json& value, const JsonPath& path, const ErrorSink& sink,
                                      bool tls_is_configured) {
  ObjectReader reader(value, path, sink);
  ConsoleListener out;
  bool is_console = false;
  reader.read_choice<bool>({"mode", "The admin console."}, is_console, kConsoleMode);
  reader.require("name", "a name");
  reader.read_text({"name", "As in the log."}, out.name, kLabel);
  read_listening_address(reader, out.address);
  reader.read_number({"port", "Of its own: no other listener or endpoint may have it, whatever the address."}, out.port,
                     1, 65535);
  reader.read_choice<ListenerTls>({"tls", "optional lets plaintext clients in, off offers no TLS."}, out.tls,
                                  kListenerTls);
  if (out.tls != ListenerTls::kOff && !tls_is_configured)
    reader.error("tls", "needs the top-level \"tls\" with certificate and key; \"off\" is allowed without");
  for (const char* key : {"branch", "target", "branch_from_sni", "proxy_protocol", "trusted_proxies"}) {
    if (reader.find({key, "Not on a listener of mode `console`."}, {.kind = Shape::Kind::kNothing}) != nullptr)
      reader.error(key, "is not allowed on a listener of mode \"console\"");
  }
  reader.finish();
  return out;
}

void read_console(ObjectReader& root, const std::string& folder, ConfigFiles& files, Config& config) {
  const Json* value =
      root.find_object({"console", "Users and limits of the admin console; a listener of mode `console` needs it."});
  if (value == nullptr) {
    if (!config.console.listeners.empty())
      root.error("console", "is missing; a listener of mode \"console\" needs its users");
    return;
  }
  const JsonPath path = root.path_of("console");
  ObjectReader reader(*value, path, root.sink());
  read_users(reader, folder, files, config.console);
  reader.read_number({"max_connections", "That have logged in; beyond them 53300."}, config.console.max_connections, 1,
                     kMostConsoles);
  reader.read_duration({"idle_timeout", "Then an idle console is ended, 57P05."}, config.console.idle_timeout, 1s,
                       168h);
  reader.finish();
}

void check_console_ports(const Config& config, const JsonPath& listeners, const ErrorSink& sink) {
  const auto complain = [&](const ConsoleListener& console, const std::string& other) {
    const JsonPath here(listeners, console.position);
    sink.add(JsonPath(here, "port"), other + " has port " + std::to_string(console.port) +
                                         " too; a console has a port of its own, whatever the address");
  };
  const auto& consoles = config.console.listeners;
  for (std::size_t i = 0; i < consoles.size(); ++i) {
    for (const auto& listener : config.listeners) {
      if (listener.port == consoles[i].port) complain(consoles[i], "listener " + listener.name);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (consoles[j].port == consoles[i].port) complain(consoles[i], "listener " + consoles[j].name);
    }
    if (config.admin && config.admin->port == consoles[i].port) complain(consoles[i], "the admin endpoint");
    if (config.metrics && config.metrics->port == consoles[i].port) complain(consoles[i], "the metrics endpoint");
  }
}

}  // namespace pointsman::routing
