"""Commands: parse a config dataclass, call the package, save."""
