// The bare libuv relay: accepts, dials, copies. It knows nothing of PostgreSQL, has no limits and no timeouts, and
// is not a program to run anywhere but here. The bench measures it beside Pointsman because it is the steadiest
// comparator: the same loop, the same system calls, nothing else. What Pointsman costs above it is Pointsman's own.
// Usage: relay_uv LISTEN_PORT BACKEND_PORT (both on 127.0.0.1)

#include <netinet/in.h>
#include <uv.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

sockaddr_in g_backend;
char g_read_buffer[64 * 1024];  // one for the whole loop: an idle pair owns no buffer

struct Pair {
  uv_tcp_t side[2];  // 0: client, 1: backend
  uv_connect_t connect;
  uv_write_t write[2];  // write[i] carries what side[i] could not take at once
  std::vector<char> rest[2];
  int open = 2;
};

int side_of(const void* handle) {
  const auto* tcp = static_cast<const uv_tcp_t*>(handle);
  return tcp == &static_cast<Pair*>(tcp->data)->side[0] ? 0 : 1;
}

uv_stream_t* stream(Pair* pair, int side) {
  return reinterpret_cast<uv_stream_t*>(&pair->side[side]);
}

void close_both(Pair* pair) {
  for (uv_tcp_t& tcp : pair->side) {
    auto* handle = reinterpret_cast<uv_handle_t*>(&tcp);
    if (uv_is_closing(handle) != 0) continue;
    uv_close(handle, [](uv_handle_t* closed) {
      auto* owner = static_cast<Pair*>(closed->data);
      if (--owner->open == 0) delete owner;
    });
  }
}

void lend_buffer(uv_handle_t*, size_t, uv_buf_t* out) {
  *out = uv_buf_init(g_read_buffer, sizeof g_read_buffer);
}

void on_read(uv_stream_t* from, ssize_t length, const uv_buf_t*) {
  auto* pair = static_cast<Pair*>(from->data);
  if (length < 0) return close_both(pair);
  if (length == 0) return;
  const int to = 1 - side_of(from);
  uv_buf_t bytes = uv_buf_init(g_read_buffer, static_cast<unsigned>(length));
  const int sent = uv_try_write(stream(pair, to), &bytes, 1);
  if (sent == length) return;
  if (sent < 0 && sent != UV_EAGAIN) return close_both(pair);
  uv_read_stop(from);
  pair->rest[to].assign(bytes.base + (sent > 0 ? sent : 0), bytes.base + length);
  uv_buf_t rest = uv_buf_init(pair->rest[to].data(), static_cast<unsigned>(pair->rest[to].size()));
  uv_write(&pair->write[to], stream(pair, to), &rest, 1, [](uv_write_t* request, int status) {
    auto* owner = static_cast<Pair*>(request->handle->data);
    if (status < 0) return close_both(owner);
    uv_read_start(stream(owner, 1 - side_of(request->handle)), lend_buffer, on_read);
  });
}

void on_connected(uv_connect_t* request, int status) {
  auto* pair = static_cast<Pair*>(request->handle->data);
  if (status < 0) return close_both(pair);
  for (int side : {0, 1}) {
    uv_tcp_nodelay(&pair->side[side], 1);
    uv_read_start(stream(pair, side), lend_buffer, on_read);
  }
}

void on_accept(uv_stream_t* listener, int status) {
  if (status < 0) return;
  auto* pair = new Pair;
  for (uv_tcp_t& tcp : pair->side) {
    uv_tcp_init(listener->loop, &tcp);
    tcp.data = pair;
  }
  if (uv_accept(listener, stream(pair, 0)) != 0) return close_both(pair);
  const auto* address = reinterpret_cast<const sockaddr*>(&g_backend);
  if (uv_tcp_connect(&pair->connect, &pair->side[1], address, on_connected) != 0) close_both(pair);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: relay_uv LISTEN_PORT BACKEND_PORT\n"), 2;
  sockaddr_in own;
  uv_ip4_addr("127.0.0.1", std::atoi(argv[1]), &own);
  uv_ip4_addr("127.0.0.1", std::atoi(argv[2]), &g_backend);
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener;
  uv_tcp_init(loop, &listener);
  int failed = uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&own), 0);
  if (failed == 0) failed = uv_listen(reinterpret_cast<uv_stream_t*>(&listener), 1024, on_accept);
  if (failed != 0) return std::fprintf(stderr, "relay_uv: %s\n", uv_strerror(failed)), 1;
  return uv_run(loop, UV_RUN_DEFAULT);
}
