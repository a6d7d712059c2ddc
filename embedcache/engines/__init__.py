"""Engines start the workers of a build. What makes a build right lies in the store, so any may be lost."""
