#pragma once
// What all SQL connections of one loop share. Made by the control thread, outlives them and the loop's run. Loop thread
// only.

#include <memory>
#include <string>
#include <unordered_map>

#include "protocol/tls_context.h"
#include "proxy/io/buffer_pool.h"
#include "proxy/io/event_loop.h"
#include "proxy/io/side.h"
#include "proxy/monitor/scram_keys.h"

namespace pointsman::proxy {

struct SqlContext {
  explicit SqlContext(EventLoop& its_loop) : loop(its_loop), keys(its_loop.uv()) {}

  EventLoop& loop;
  ScramKeys keys;
  BufferPool pool;
  /// The sessions' own, by routing::BackendTlsConfig::context_key(): replaced by every reload. One that could not be
  /// made is absent, and its connections fail.
  std::unordered_map<std::string, std::shared_ptr<const protocol::ClientTlsContext>> tls;
  Scratch scratch;  // not initialised: what is never used stays out of memory
};

}  // namespace pointsman::proxy
