#include "proxy/monitor/verifier_service.h"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/monitor/monitor.h"
#include "proxy/monitor/uv_handles.h"
#include "proxy/monitor/verifier_lookup.h"
#include "proxy/monitor/verifier_row.h"

namespace pointsman::proxy {
namespace {

using Kind = VerifierAnswer::Kind;
using Verdict = VerifierCache::Verdict;

VerifierAnswer unavailable(std::string why) {
  VerifierAnswer answer;
  answer.kind = Kind::kUnavailable;
  answer.log_detail = std::move(why);
  return answer;
}

}  // namespace

struct VerifierService::Impl final : VerifierLookup::Owner, ViewListener {
  Impl(SqlContext& shared, MonitorAccess& access, VerifierSink& answers, EventSink& news)
      : sql(shared), monitor(access), sink(answers), events(news), handles(make_handle_count()) {
    monitor.set_listener(this);
  }

  void ask(VerifierQuery query) {
    if (stopped) return sink.deliver(query, unavailable("shutting down"));
    const auto view = monitor.view(query.branch);
    if (view == nullptr) return sink.deliver(query, unavailable("no such branch"));
    const auto now = loop_clock();
    if (const auto& userlist = view->config->auth.userlist; userlist != nullptr) {
      const auto entry = userlist->find(query.role);
      const auto answer = judge_userlist_entry(entry == userlist->end() ? nullptr : &entry->second, now);
      ++stats.hits;
      return sink.deliver(query, answer);
    }
    configs[query.branch] = view->config;
    auto asked = cache.ask(query, now);
    switch (asked.verdict) {
      case Verdict::kHit:
        ++stats.hits;
        return sink.deliver(query, asked.answer);
      case Verdict::kThrottled:
        ++stats.throttled;
        return sink.deliver(query, asked.answer);
      case Verdict::kWait:
        return;
      case Verdict::kLookUp:
        break;
    }
    monitor.want(query.branch);
    auto& lookup = lookups[query.branch];
    if (lookup == nullptr) {
      VerifierLookup::Owner& owner = *this;
      lookup = std::make_unique<VerifierLookup>(sql, handles, monitor, owner, events, query.branch);
    }
    lookup->ask(std::move(query.role));
  }

  void count(Kind kind) {
    switch (kind) {
      case Kind::kFound:
        ++stats.found;
        return;
      case Kind::kNoRole:
        ++stats.no_role;
        return;
      case Kind::kUnusable:
        ++stats.unusable;
        return;
      case Kind::kUnavailable:
        ++stats.unavailable;
        return;
      case Kind::kFault:
        ++stats.fault;
        return;
      case Kind::kThrottled:
        ++stats.throttled;
        return;
    }
  }

  void on_lookup_answer(const std::string& branch, const std::string& role, VerifierAnswer answer) override {
    count(answer.kind);
    auto finished = cache.finish(branch, role, std::move(answer), loop_clock());
    for (const auto& query : finished.waiting) sink.deliver(query, finished.answer);
    for (auto& query : finished.again) ask(std::move(query));
  }

  void on_lookup_idle(const std::string& branch) override {
    const std::string name = branch;  // it is the look-up's own
    lookups.erase(name);
  }

  void on_view(std::string_view branch) override {
    const auto found = lookups.find(branch);
    if (found != lookups.end()) found->second->on_view();
  }

  void on_config_changed() {
    std::set<std::string> changed;
    for (auto entry = configs.begin(); entry != configs.end();) {
      const auto view = monitor.view(entry->first);
      if (view != nullptr && view->config == entry->second) {
        ++entry;
        continue;
      }
      changed.insert(entry->first);
      entry = configs.erase(entry);
    }
    cache.forget(changed);
    for (const auto& branch : changed) {
      if (const auto found = lookups.find(branch); found != lookups.end()) found->second->restart();
    }
  }

  void shut_down() {
    if (stopped) return;
    stopped = true;
    monitor.set_listener(nullptr);
    for (const auto& [branch, lookup] : lookups) lookup->abandon("shutting down");
    lookups.clear();
  }

  SqlContext& sql;
  MonitorAccess& monitor;
  VerifierSink& sink;
  EventSink& events;
  HandleCount handles;
  VerifierCache cache;
  VerifierStats stats;
  std::map<std::string, std::unique_ptr<VerifierLookup>, std::less<>> lookups;
  /// With which configuration a branch's entries were read.
  std::map<std::string, std::shared_ptr<const routing::BranchConfig>> configs;
  bool stopped = false;
};

VerifierService::VerifierService(SqlContext& sql, MonitorAccess& monitor, VerifierSink& sink, EventSink& events)
    : impl_(std::make_unique<Impl>(sql, monitor, sink, events)) {}

VerifierService::~VerifierService() {
  impl_->shut_down();
}

void VerifierService::ask(VerifierQuery query) {
  impl_->ask(std::move(query));
}
void VerifierService::on_config_changed() {
  impl_->on_config_changed();
}
void VerifierService::shut_down() {
  impl_->shut_down();
}
bool VerifierService::idle() const {
  return impl_->stopped && *impl_->handles == 0;
}
const VerifierStats& VerifierService::stats() const {
  return impl_->stats;
}

}  // namespace pointsman::proxy
