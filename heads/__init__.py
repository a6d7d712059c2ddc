"""Train and score heads on cached embeddings. Imports nothing, so that ``heads --help`` starts at once."""
