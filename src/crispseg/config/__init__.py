"""Typed settings, registries, plugins and YAML files."""
