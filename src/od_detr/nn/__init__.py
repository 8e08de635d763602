"""The modules that all architectures are built from."""
