#pragma once
// What both halves of a router's dealings with its peers share; outlives them. Control loop only.

#include <functional>
#include <memory>

#include "proxy/fleet/peer_wire.h"
#include "proxy/io/event_loop.h"
#include "proxy/io/side.h"

namespace pointsman::proxy {

struct PeerContext {
  explicit PeerContext(EventLoop& the_loop) : loop(&the_loop) {}

  EventLoop* loop;
  RouterId router{};
  BufferPool pool;
  /// A deadline has been set: on_tick() is wanted soon.
  std::function<void()> wake;

  /// Made when first needed: most routers have no peers.
  Scratch& scratch() {
    if (scratch_ == nullptr) scratch_.reset(new Scratch);  // uninitialised on purpose
    return *scratch_;
  }

 private:
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace pointsman::proxy
