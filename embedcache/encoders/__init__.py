"""Encoders: token rules, the spec, the registry, and one file a family. No ``torch`` until one is loaded."""
