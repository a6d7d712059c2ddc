"""What letters, tokens and variants do to the predictions of a run, its encoders live."""
