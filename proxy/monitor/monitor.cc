#include "proxy/monitor/monitor.h"

#include <map>
#include <random>
#include <utility>

#include "proxy/monitor/branch_monitor.h"
#include "proxy/monitor/resolver.h"
#include "proxy/monitor/sql_context.h"
#include "proxy/monitor/uv_handles.h"

namespace pointsman::proxy {

struct Monitor::Impl final : BranchMonitor::Owner, Resolver::Owner {
  Impl(SqlContext& sql, ViewSink& view_sink, EventSink& events, std::size_t workers, std::size_t listeners,
       const StateDir* state)
      : sink(view_sink),
        resolver(sql.loop.uv(), *this),
        context{&sql,      sql.loop.uv(), make_handle_count(),
                &resolver, &discovery,    std::minstd_rand(std::random_device{}()),
                workers,   listeners,     state,
                &events},
        discovery{{&sql.loop, context.handles, &sql.scratch, &sql.pool}, &resolver, &context.random, &events, {}} {}

  void on_branch_view(BranchMonitor& branch) override {
    if (configuring || stopped) return;
    sink.publish(branch.index, branch.view());
    if (listener != nullptr) listener->on_view(branch.view()->config->name);
  }

  void on_resolved(const std::string& host, bool changed) override {
    if (stopped) return;
    discovery.on_resolved(host);
    if (!changed && !resolver.addresses_of(host).empty()) return;
    for (const auto& branch : branches) branch->on_resolved(host);
  }

  BranchMonitor* find(std::string_view name) const {
    const int index = directory == nullptr || stopped ? -1 : directory->find(name);
    return index < 0 ? nullptr : branches[static_cast<std::size_t>(index)].get();
  }

  ViewSink& sink;
  ViewListener* listener = nullptr;
  Resolver resolver;
  MonitorContext context;
  DiscoveryContext discovery;
  std::shared_ptr<const routing::Directory> directory;
  std::vector<std::unique_ptr<BranchMonitor>> branches;                // as in the directory
  std::vector<std::shared_ptr<const routing::BranchView>> last_views;  // after shut_down()
  bool configuring = false;
  bool stopped = false;
};

Monitor::Monitor(SqlContext& sql, ViewSink& sink, EventSink& events, std::size_t workers, std::size_t listeners,
                 const StateDir* state)
    : impl_(std::make_unique<Impl>(sql, sink, events, workers, listeners, state)) {}

Monitor::~Monitor() = default;

std::vector<std::shared_ptr<const routing::BranchView>> Monitor::configure(
    std::shared_ptr<const routing::Directory> directory) {
  Impl& impl = *impl_;
  if (impl.stopped) return {};
  impl.configuring = true;
  std::map<std::string, std::unique_ptr<BranchMonitor>> old;
  for (std::size_t i = 0; i < impl.branches.size(); ++i)
    old.emplace(impl.directory->name(i), std::move(impl.branches[i]));
  impl.branches.clear();
  impl.directory = std::move(directory);
  for (std::size_t i = 0; i < impl.directory->size(); ++i) {
    const auto& name = impl.directory->name(i);
    const auto& config = impl.directory->config().branches.find(name)->second;
    std::unique_ptr<BranchMonitor> branch;
    if (const auto found = old.find(name); found != old.end()) {
      branch = std::move(found->second);
      branch->reconfigure(config);
    } else {
      BranchMonitor::Owner& owner = impl;
      branch = std::make_unique<BranchMonitor>(impl.context, owner, config);
    }
    branch->index = i;
    impl.branches.push_back(std::move(branch));
  }
  impl.configuring = false;
  impl.resolver.forget_unused(loop_clock() - std::chrono::hours(1));
  return views();
}

void Monitor::set_listener(ViewListener* listener) {
  impl_->listener = listener;
}

std::shared_ptr<const routing::BranchView> Monitor::view(std::string_view branch) const {
  const BranchMonitor* found = impl_->find(branch);
  return found == nullptr ? nullptr : found->view();
}

void Monitor::want(std::string_view branch) {
  if (BranchMonitor* found = impl_->find(branch); found != nullptr) found->want();
}

void Monitor::on_dial_failed(std::string_view branch, std::size_t member) {
  if (BranchMonitor* found = impl_->find(branch); found != nullptr) found->probe_soon(member);
}

void Monitor::want_fresh(std::string_view branch, base::Instant until) {
  if (BranchMonitor* found = impl_->find(branch); found != nullptr) found->probe_often(until);
}

void Monitor::set_on_hold(std::string_view branch, bool on_hold) {
  if (BranchMonitor* found = impl_->find(branch); found != nullptr) found->set_on_hold(on_hold);
}

std::optional<std::string> Monitor::adopt(std::string_view branch) {
  BranchMonitor* found = impl_->find(branch);
  return found == nullptr ? std::nullopt : found->adopt();
}

std::vector<std::shared_ptr<const routing::BranchView>> Monitor::views() const {
  if (impl_->stopped) return impl_->last_views;
  std::vector<std::shared_ptr<const routing::BranchView>> out;
  out.reserve(impl_->branches.size());
  for (const auto& branch : impl_->branches) out.push_back(branch->view());
  return out;
}

std::uint64_t Monitor::probe_failures(std::string_view branch, std::size_t member) const {
  const BranchMonitor* found = impl_->find(branch);
  return found == nullptr ? 0 : found->probe_failures(member);
}

std::optional<DiscoveryStatus> Monitor::discovery(std::string_view branch) const {
  const BranchMonitor* found = impl_->find(branch);
  return found == nullptr ? std::nullopt : found->discovery(loop_clock());
}

void Monitor::shut_down() {
  if (impl_->stopped) return;
  impl_->last_views = views();
  impl_->stopped = true;
  impl_->branches.clear();
}

bool Monitor::idle() const {
  return impl_->stopped && *impl_->context.handles == 0 && impl_->resolver.idle();
}

}  // namespace pointsman::proxy
