# Writes the files of the status page as a C++ source: cmake -DFOLDER=… -DOUTPUT=… -P embed.cmake
# index.html is served as /, everything else as /assets/NAME (proxy/admin/page_files.h).
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")

file(GLOB names RELATIVE ${FOLDER} ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js ${FOLDER}/*.svg)
list(SORT names)
set(arrays "")
set(table "")
set(number 0)
foreach(name ${names})
  file(READ ${FOLDER}/${name} hex HEX)
  # Sixteen bytes a line.
  string(REGEX REPLACE "................................" "\\0\n" lines "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${lines}")
  get_filename_component(extension ${name} LAST_EXT)
  string(SUBSTRING ${extension} 1 -1 extension)
  if(name STREQUAL "index.html")
    set(path "/")
  else()
    set(path "/assets/${name}")
  endif()
  string(APPEND arrays "constexpr unsigned char kFile${number}[] = {\n${bytes}};\n")
  string(APPEND table "    PageFile{\"${path}\", \"${type_${extension}}\", text(kFile${number})},\n")
  math(EXPR number "${number} + 1")
endforeach()
if(number EQUAL 0)
  message(FATAL_ERROR "no page in ${FOLDER}")
endif()

file(WRITE ${OUTPUT}.new "// Written by proxy/admin/page/embed.cmake.
#include \"proxy/admin/page_files.h\"

#include <array>
#include <cstddef>

namespace pointsman::proxy {
namespace {

${arrays}
template <std::size_t Size>
std::string_view text(const unsigned char (&bytes)[Size]) {
  return {reinterpret_cast<const char*>(bytes), Size};
}

}  // namespace

std::span<const PageFile> page_files() {
  static const std::array<PageFile, ${number}> files = {
${table}  };
  return files;
}

}  // namespace pointsman::proxy
")
file(RENAME ${OUTPUT}.new ${OUTPUT})
