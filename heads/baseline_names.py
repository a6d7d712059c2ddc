"""Names of the baselines, the rows that stand in every table. Imports nothing slow."""

__all__ = ["BASELINES", "COUNTS", "KERNEL", "LENGTHS", "POOLED", "TISSUE_MEAN"]

TISSUE_MEAN = "tissue mean"
LENGTHS = "log lengths"
COUNTS = "k-mers, codons, lengths"
POOLED = "pooled embeddings"
KERNEL = "kernel on pooled embeddings"
BASELINES: tuple[str, ...] = (TISSUE_MEAN, LENGTHS, COUNTS, POOLED, KERNEL)
"""In the order of tables; the last one is not linear."""
