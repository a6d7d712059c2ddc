"""Embeddings in the formats of other tools: writing a store out, and making a store from what another tool computed."""
