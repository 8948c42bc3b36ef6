// Linked into ThreadSanitizer builds only. libspdlog is not instrumented: the counting of its shared pointers, which it
// does inside the library, is invisible, so the last message's release of the logger looks unordered against the thread
// that stops logging. What is suppressed is a report with a frame of that library in it.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:libspdlog.so\n";
}
