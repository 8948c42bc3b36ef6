#include "proxy/admin/version.h"

#ifndef POINTSMAN_VERSION
#error \
    "POINTSMAN_VERSION is not defined: target_compile_definitions(... PRIVATE POINTSMAN_VERSION=\"${PROJECT_VERSION}\")"
#endif

namespace pointsman::proxy {

std::string_view version() {
  return POINTSMAN_VERSION;
}

}  // namespace pointsman::proxy
