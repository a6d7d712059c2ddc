"""Makes dataset directories: from a genome, the published IsoFormer table, FASTA files, or a simulation."""
