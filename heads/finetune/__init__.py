"""Training encoders together with a head: live encoders in place of some of the cached embeddings."""
