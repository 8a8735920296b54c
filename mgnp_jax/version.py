"""The package's version, alone so that a build can read it without importing JAX."""

__version__ = "0.1.0"
