// libpq brings libldap, and that GnuTLS, whose constructor checks its ciphers and loads PKCS #11 modules: 1.5 MiB and
// some milliseconds for what a router never uses. GnuTLS asks this function first (gnutls(7), "Initialization":
// GNUTLS_SKIP_GLOBAL_INIT); whoever does use it, initialises it then.
extern "C" int _gnutls_global_init_skip();
extern "C" __attribute__((visibility("default"))) int _gnutls_global_init_skip() {
  return 1;
}
