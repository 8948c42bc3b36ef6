// Linked into ThreadSanitizer builds only. libspdlog is not instrumented: the counting of its shared pointers, which it
// does inside the library, is invisible, so the last message's release of the logger looks unordered against the thread
// that stops logging. Nothing of ours is suppressed.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libspdlog.so\n"
         "race:spdlog::async_logger\n";
}
