"""Looking into trained runs: what the model reads in a sequence, and what a change of it does."""
