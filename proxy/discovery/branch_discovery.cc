#include "proxy/discovery/branch_discovery.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace pointsman::proxy {
namespace {

std::string_view name_of(const routing::DiscoverConfig& config) {
  struct Visitor {
    std::string_view operator()(const routing::DnsDiscovery&) const { return "dns"; }
    std::string_view operator()(const routing::PatroniDiscovery&) const { return "patroni"; }
    std::string_view operator()(const routing::KubernetesDiscovery&) const { return "kubernetes"; }
  };
  return std::visit(Visitor{}, config.source);
}

/// Whether both ask for the same cluster, so that what the one has heard counts for the other.
bool same_place(const routing::DiscoverConfig& a, const routing::DiscoverConfig& b) {
  if (a.source.index() != b.source.index()) return false;
  if (const auto* dns = std::get_if<routing::DnsDiscovery>(&a.source)) {
    const auto& other = std::get<routing::DnsDiscovery>(b.source);
    return dns->name == other.name && dns->family == other.family && dns->port == other.port;
  }
  if (const auto* patroni = std::get_if<routing::PatroniDiscovery>(&a.source)) {
    const auto& other = std::get<routing::PatroniDiscovery>(b.source).urls;
    return std::any_of(patroni->urls.begin(), patroni->urls.end(), [&](const routing::HttpUrl& url) {
      return std::find(other.begin(), other.end(), url) != other.end();
    });
  }
  const auto& mine = std::get<routing::KubernetesDiscovery>(a.source);
  const auto& other = std::get<routing::KubernetesDiscovery>(b.source);
  return mine.namespace_name == other.namespace_name && mine.service == other.service && mine.api == other.api;
}

std::string names_of(const routing::Discovered& found) {
  std::string names;
  for (const auto& member : found.members) {
    const bool ipv6 = member.host.find(':') != std::string::npos;
    names += (names.empty() ? "" : ", ") + member.name + " (" + (ipv6 ? "[" + member.host + "]" : member.host) + ":" +
             std::to_string(member.port) + ")";
  }
  return names;
}

}  // namespace

BranchDiscovery::BranchDiscovery(DiscoveryContext& context, Owner& owner, std::string branch,
                                 routing::DiscoverConfig config)
    : context_(context), owner_(owner), branch_(std::move(branch)), config_(std::move(config)) {}

void BranchDiscovery::reconfigure(const routing::DiscoverConfig& config) {
  if (config == config_) return;
  if (!same_place(config, config_)) {
    found_.reset();
    answered_at_ = {};
    named_.reset();
    fresh_ = false;
  }
  config_ = config;
  const bool running = source_ != nullptr;
  stop();
  if (running) start();
}

void BranchDiscovery::start() {
  DiscoverySource::Owner& owner = *this;
  if (source_ == nullptr) source_ = make_discovery_source(context_, owner, config_);
}

void BranchDiscovery::stop() {
  source_.reset();
  fresh_ = false;
  failure_.clear();
  problems_told_.clear();
  named_.reset();
}

void BranchDiscovery::ask_soon() {
  if (source_ != nullptr) source_->ask_soon();
}

std::optional<std::string> BranchDiscovery::leader() const {
  return fresh_ && found_ ? found_->leader : std::nullopt;
}

DiscoveryStatus BranchDiscovery::status(base::Instant now) const {
  DiscoveryStatus status;
  status.source = std::string(name_of(config_));
  if (source_ != nullptr && (fresh_ || !failure_.empty())) status.up = fresh_;
  if (answered_at_ != base::Instant{}) status.age_seconds = base::to_seconds(now - answered_at_);
  status.error = failure_;
  status.failures = failures_;
  return status;
}

void BranchDiscovery::on_discovered(const routing::Discovered& found) {
  answered_at_ = loop_clock();
  fresh_ = true;
  if (!std::exchange(failure_, {}).empty()) tell(LogLevel::kInfo, " answers again");
  report_problems(found);
  const bool others = !found_ || found_->members != found.members;
  found_ = found;
  if (others) {
    tell(LogLevel::kInfo, " names the members " + names_of(found));
    owner_.on_members_found();
  }
  note_leader();
}

void BranchDiscovery::on_discovery_failed(const std::string& why) {
  ++failures_;
  fresh_ = false;
  // Once per change, not once per question.
  if (failure_ != why) {
    tell(LogLevel::kWarning,
         std::string(" failed, ") +
             (found_ ? "the members known so far stay in force: " : "it has named no member yet: ") +
             routing::escape_for_log(why, 512));
    failure_ = why;
  }
  note_leader();
}

void BranchDiscovery::report_problems(const routing::Discovered& found) {
  for (const std::string& problem : found.problems) {
    if (std::find(problems_told_.begin(), problems_told_.end(), problem) == problems_told_.end())
      tell(LogLevel::kWarning, ": " + problem);
  }
  problems_told_ = found.problems;
}

void BranchDiscovery::tell(LogLevel level, const std::string& what) {
  context_.events->tell(level, EventKind::kDiscovery, branch_,
                        "discovery (" + std::string(name_of(config_)) + ")" + what);
}

void BranchDiscovery::note_leader() {
  const auto now_named = leader();
  if (now_named == named_) return;
  named_ = now_named;
  owner_.on_leader_named();
}

}  // namespace pointsman::proxy
