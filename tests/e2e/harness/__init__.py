"""The machinery of the end-to-end tests: real servers, real certificates, and a client that speaks raw bytes."""
