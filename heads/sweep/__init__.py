"""Many runs over one grid that share reads of the cache, and the table of what they reach."""
