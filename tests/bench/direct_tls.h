#pragma once

// Direct TLS for Debian 12's libpq 15, which cannot do it yet (sslnegotiation=direct came with libpq 17).
//
// A TLS terminator without knowledge of PostgreSQL, such as HAProxy 2.6, cannot answer the SSLRequest packet: its
// clients must begin with the ClientHello. This module puts itself between libpq and the C library (the program's
// own send, recv and poll win over libc's when symbols are bound), swallows the eight bytes of an SSLRequest and
// answers 'S' in the server's place. Everything after that is libpq's own, unchanged.

namespace direct_tls {

// Off at start. Applies to every connection that libpq opens afterwards.
void enable();

}  // namespace direct_tls
