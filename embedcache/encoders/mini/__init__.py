"""Small pretrained encoders of our own: ``mini-dna``, ``mini-rna``, ``mini-protein``, and how they were trained."""
