// Runs every file of the given corpus folders through one fuzz target, for builds without libFuzzer. Usage: <target>
// FOLDER... Fails when a folder cannot be read or holds no file; a finding ends the process.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

bool run_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    return false;
  }
  std::printf("%s: %zu bytes\n", path.c_str(), bytes.size());
  std::fflush(stdout);  // the last line names the input of a crash
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  return true;
}

/// Number of files run, or -1.
int run_folder(const char* folder) {
  std::error_code error;
  int files = 0;
  for (auto entry = std::filesystem::directory_iterator(folder, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (!entry->is_regular_file()) continue;
    if (!run_file(entry->path())) return -1;
    ++files;
  }
  if (error) {
    std::fprintf(stderr, "cannot read %s: %s\n", folder, error.message().c_str());
    return -1;
  }
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
    return 2;
  }
  for (int at = 1; at < argc; ++at) {
    const int files = run_folder(argv[at]);
    if (files == 0) std::fprintf(stderr, "no file in %s\n", argv[at]);
    if (files <= 0) return 1;
    std::printf("%s: %d files\n", argv[at], files);
  }
  return 0;
}
