# What a folder must not know, by its includes (docs/architecture.md). The link lists enforce most of it; this finds headers too.
set(rules
  "base|#include \"(protocol|routing|metrics|proxy)/|uv\\.h|openssl|spdlog|libpq"
  "protocol|#include \"(routing|metrics|proxy)/|<uv\\.h>|spdlog|libpq|nlohmann"
  "routing|#include \"(protocol|metrics|proxy)/|<uv\\.h>|openssl|spdlog|libpq|prometheus"
  "metrics|#include \"(protocol|routing|proxy)/|<uv\\.h>|openssl|spdlog|libpq")
set(faults 0)
foreach(rule ${rules})
  string(REGEX MATCH "^[a-z]+" folder "${rule}")
  string(REGEX REPLACE "^[a-z]+\\|" "" forbidden "${rule}")
  file(GLOB sources ${SOURCE}/${folder}/*.h ${SOURCE}/${folder}/*.cc)
  if(NOT sources)
    message(FATAL_ERROR "no sources in ${folder}")
  endif()
  foreach(source ${sources})
    file(STRINGS ${source} includes REGEX "^#include")
    foreach(line ${includes})
      if(line MATCHES "${forbidden}")
        message(SEND_ERROR "${source}: ${line}")
        math(EXPR faults "${faults} + 1")
      endif()
    endforeach()
  endforeach()
endforeach()
# prometheus-cpp is the registry's affair, libuv's and OpenSSL's types stay out of the session core, of the console's and of the fleet's.
file(GLOB core ${SOURCE}/proxy/session/session_core.* ${SOURCE}/proxy/session/session_login.cc ${SOURCE}/proxy/session/login.h
     ${SOURCE}/proxy/console/console_core.* ${SOURCE}/proxy/console/console_login.cc ${SOURCE}/proxy/console/result.* ${SOURCE}/proxy/console/statement.*
     ${SOURCE}/proxy/fleet/peer_wire.* ${SOURCE}/proxy/fleet/sealed_destination.*)
foreach(source ${core})
  file(STRINGS ${source} includes REGEX "^#include.*(<uv\\.h>|openssl|proxy/io|proxy/server|spdlog|libpq)")
  foreach(line ${includes})
    message(SEND_ERROR "${source}: ${line}")
  endforeach()
endforeach()
